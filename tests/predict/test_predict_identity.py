"""What results depend on is noticed, and batches are as large as asked."""

import hashlib
import json
from unittest import mock

import every_task
import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import SIDE

import keras_bridgetower as kbt
from keras_bridgetower.apps.predict import batches
from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict.rows import Row
from keras_bridgetower.presets.verbs import BUILT_IN
from keras_bridgetower.tasks import inference
from keras_bridgetower.tasks.identity import model_checksum

pytestmark = FASTEST
PRESET = "bridgetower_tiny_easy_vqa"


def opened(**kwargs):
    return kbt.BridgeTowerVQA.from_preset(PRESET, **kwargs)


def of_float32(task):
    """The sum by the values alone, as float32."""
    parts = sorted(
        hashlib.sha256(
            str(w.shape).encode()
            + np.asarray(w.value.detach().float()).tobytes()
        ).hexdigest()
        for w in task.weights
        if w.value.dtype.is_floating_point
    )
    heads = json.dumps(task.head_values, sort_keys=True)
    return hashlib.sha256("".join([*parts, heads]).encode()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checksum_covers_all_weights(dtype):
    task = opened(dtype=dtype)
    first = model_checksum(task)
    assert first == of_float32(task)
    dtypes = {str(w.dtype): w for w in reversed(task.weights)}
    assert set(dtypes) == {dtype, "int32"}
    for name, weight in dtypes.items():
        before = keras.ops.copy(weight.value)
        weight.assign(weight.value + 1)
        # Position ids, which some backends keep as int64.
        assert (model_checksum(task) == first) == (name == "int32")
        weight.assign(before)
    assert model_checksum(task) == first


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_checksum_covers_int8_weights():
    task = opened()
    task.quantize("int8")
    first = model_checksum(task)
    weight = next(w for w in task.weights if str(w.dtype) == "int8")
    weight.assign(keras.ops.zeros_like(weight.value))
    assert model_checksum(task) != first


@pytest.fixture(scope="module")
def asked():
    """A task of which a test restores what it changes."""
    return opened()


@pytest.mark.parametrize(
    "other, differs",
    [
        # The size of pictures also changes the positions of the model.
        (
            {"image_size": 32, "image_mode": "hf"},
            {"image_size", "model", "image_mode"},
        ),
        (
            {"sequence_length": 12, "dtype": "mixed_bfloat16"},
            {"sequence_length", "dtype"},
        ),
        ("mean", {"image_mean"}),
        ("crop_pct", {"image_crop_pct"}),
        ("vocabulary", {"tokenizer"}),
    ],
)
def test_headers_differ_in_what_was_changed(other, differs, asked, monkeypatch):
    rows = mock.Mock(sum="", pictures="")

    def header(task):
        return output.make_header(task, BUILT_IN["vqa"], rows, 1)

    task, before = asked, header(asked)
    made = task.preprocessor
    if other == "mean":
        monkeypatch.setattr(made.image_converter, "mean", (0.5, 0.5, 0.5))
    elif other == "crop_pct":
        monkeypatch.setattr(made.image_converter, "crop_pct", 0.9)
    elif other == "vocabulary":
        words = made.tokenizer.get_vocabulary()[::-1]
        monkeypatch.setattr(made.tokenizer, "get_vocabulary", lambda: words)
    else:
        task = opened(**other)
    after = header(task)
    assert {name for name in before if before[name] != after[name]} == differs


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_is_one_forward_pass(name, monkeypatch):
    """Also one above the verbs' own size, 32."""
    named = "contrastive" if name.startswith("embed") else name
    task = every_task.make(named)
    task.compile(run_eagerly=True)
    sizes, filled = [], inference.filled

    def counted(x, size):
        sizes.append(size)
        return filled(x, size)

    monkeypatch.setattr(inference, "filled", counted)
    values = {c: "a <mask> circle" for c in BUILT_IN[name].inputs}
    rows = [Row(i, values, "", None) for i in range(34)]
    pixels = np.zeros((SIDE, SIDE, 3), "uint8")
    monkeypatch.setattr(batches, "open_picture", lambda *_: pixels)
    [made] = batches.run_rows(task, BUILT_IN[name], rows, 1, 34)
    assert len(made) == 34 and not any("error" in row for row in made)
    assert set(sizes) == {34}
