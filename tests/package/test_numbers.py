"""NumPy's integers do what Python's do, and booleans are no numbers."""

import json

import builders
import numpy as np
import pytest
import streams

import keras_bridgetower as kbt
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.data.records.format import written_without_addresses
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.retrieval import as_image_ids
from keras_bridgetower.training.recipes import paper

pytestmark = builders.FASTEST


def recipe(name, value):
    made = paper.get("vqa_base").replace(**{name: value})
    return getattr(made, name)


def converter(**sizes):
    made = kbt.BridgeTowerImageConverter(**{"image_size": 9} | sizes)
    return {name: made.get_config()[name] for name in sizes}


def masked(count):
    ids = np.arange(3, 9)
    values = dict(mask_token_id=4, special_token_ids=(), vocabulary_size=9)
    masking = TokenMasking(**values, sequence_length=6, max_masks=count)
    made = masking(ids, np.ones_like(ids), seed=0)
    return made["mask_positions"].tolist()


# Each makes something of 3, and returns what of it is written to files.
USES = {
    "batch_size of a recipe": lambda n: recipe("batch_size", n),
    "window": lambda n: written_without_addresses(Shuffled(n)),
    "size_divisor": lambda n: converter(size_divisor=n),
    "sequence_length": lambda n: builders.tokenizer(n).get_config()[
        "sequence_length"
    ],
    "max_masks": masked,
    "image ids": lambda n: as_image_ids(np.array([n, "a"], object)).tolist(),
}


@pytest.mark.parametrize("name", USES)
def test_integers_of_numpy_are_integers(name):
    use = USES[name]
    expected = json.dumps(use(3))
    for kind in (np.int64, np.int32, np.uint8):
        assert json.dumps(use(kind(3))) == expected
    for wrong in (True, np.True_, 2.5):
        with pytest.raises(ValueError, match="Received"):
            use(wrong)


def test_streams_and_records_count_by_integers_of_numpy(tmp_path):
    records = [streams.record("text_classification", i) for i in range(4)]
    task = "text_classification"
    two = np.int64(2)
    reader = streams.write(tmp_path / "a", records, task, num_shards=two)
    assert len(reader.shards) == 2
    given = dict(batch_size=4, num_hosts=2, host=0, seed=3)
    expected = Stream(reader, **given)
    found = Stream(reader, **{k: np.int64(v) for k, v in given.items()})
    assert json.dumps(found.identity) == json.dumps(expected.identity)
    assert found.ids(0) == expected.ids(0)
    with pytest.raises(ValueError, match="`num_hosts`"):
        Stream(reader, **given | {"num_hosts": True})
    with pytest.raises(ValueError, match="`num_shards`"):
        streams.write(tmp_path / "b", records, task, num_shards=True)


@pytest.mark.parametrize("value", [0, "5", True, np.nan])
def test_limits_refuse_what_are_no_seconds(value):
    with pytest.raises(ValueError, match="`seconds` must be a number above 0"):
        Limits(seconds=value)
    assert Limits(seconds=np.float32(0.5)).seconds == 0.5
