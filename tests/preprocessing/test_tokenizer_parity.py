"""BridgeTowerTokenizer with the published files, against transformers."""

import random

import numpy as np
import pytest
import tensorflow as tf
from builders import FASTEST
from roberta_peer import packed
from roberta_peer import published_peer
from roberta_peer import random_strings
from roberta_peer import shared_data

from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer

pytestmark = [FASTEST, pytest.mark.filterwarnings("ignore:.*texts cut")]


@pytest.fixture(scope="module")
def roberta():
    folder = shared_data()
    if folder is None:
        pytest.skip("needs shared/data/roberta, which is not in the project")
    return BridgeTowerTokenizer(
        folder / "roberta" / "vocab.json",
        str(folder / "roberta" / "merges.txt"),
    )


def test_equals_transformers_eagerly_and_in_tf_data(roberta):
    texts = random_strings(3000)
    assert len(texts) > 2600
    expected = published_peer()(texts, **packed())
    eager = roberta.encode(texts)
    np.testing.assert_array_equal(eager["token_ids"], expected["input_ids"])
    np.testing.assert_array_equal(
        eager["padding_mask"], expected["attention_mask"]
    )
    # Some texts must really be cut for this to say anything about cutting.
    assert (eager["padding_mask"].sum(-1) == 50).sum() > 50

    dataset = tf.data.Dataset.from_tensor_slices(texts)
    one_by_one = dataset.map(roberta, num_parallel_calls=2)
    np.testing.assert_array_equal(
        np.stack(list(one_by_one.as_numpy_iterator())), expected["input_ids"]
    )
    batches = list(dataset.batch(500).map(roberta.encode).as_numpy_iterator())
    for name in ("token_ids", "padding_mask"):
        graph = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(graph, eager[name])


def test_masks_in_a_text_equal_transformers(roberta):
    rng = random.Random(3)
    spaces = ("", " ", "  ", "\t", "\u00a0", "\u3000 ", "\x1c", "\u200b", "\n")
    texts = ["<mask>", " <mask> ", "<mask><mask> <mask>", "a small <mask> dog."]
    for text in random_strings(1000):
        parts = [text]
        for _ in range(rng.randint(1, 3)):
            around = (rng.choice(spaces), "<mask>", rng.choice(spaces))
            parts += ["".join(around), rng.choice(["a", "Dog,", "", "é"])]
        texts.append("".join(parts))
    expected = published_peer()(texts, **packed())
    found = roberta.encode_with_masks(texts)
    np.testing.assert_array_equal(found["token_ids"], expected["input_ids"])
    np.testing.assert_array_equal(
        found["padding_mask"], expected["attention_mask"]
    )
    # Elsewhere the same characters are text.
    assert not (roberta(texts) == roberta.mask_token_id).any()


def test_pairs_equal_transformers(roberta):
    length = 21
    folder = shared_data() / "roberta"
    files = (folder / "vocab.json", folder / "merges.txt")
    tokenizer = BridgeTowerTokenizer(*files, sequence_length=length)
    texts = random_strings(1000)
    others = texts[::-1]
    found = tokenizer.encode_pairs(texts, others)
    expected = published_peer()(texts, others, **packed(length))
    np.testing.assert_array_equal(found["token_ids"], expected["input_ids"])
    full = found["padding_mask"].sum(-1) == length
    assert 50 < full.sum() < 950
