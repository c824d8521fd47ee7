"""Pictures of every form in verbs, `predict` and `fit`, and their errors."""

import every_task
import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import backbone
from builders import eager
from builders import features
from builders import randomise
from builders import roberta
from builders import shallow
from builders import slow_on
from builders import some_everywhere
from builders import tokenizer
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)

ASKED = "what color is the shape?"
ANSWERS = ["blue", "red"]


@pytest.fixture(scope="module")
def vqa():
    return kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")


@slow_on("tensorflow")
@pytest.mark.parametrize("as_column", some_everywhere([list, np.array], list))
def test_a_missing_file_is_named_by_its_row_in_the_data(
    vqa, tmp_path, as_column
):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png")] * 9
    paths[7] = "no/such.png"
    x = {"images": as_column(paths), "text": [ASKED] * 9}
    y = np.zeros(9, "int32")
    for call in (
        lambda: vqa.predict(x, batch_size=2, verbose=0),
        lambda: vqa.evaluate(x, y, batch_size=2, verbose=0),
        lambda: vqa.fit(x, y, batch_size=2, verbose=0),
        # In the part to validate on.
        lambda: vqa.fit(x, y, batch_size=2, verbose=0, validation_split=0.3),
    ):
        with pytest.raises(ValueError, match=r"images\[7\]='no/such.png'"):
            call()


GOOD = {"images": np.zeros((2, 40, 30, 3), "uint8"), "text": [ASKED] * 2}


@FASTEST
def test_errors_are_those_of_the_preprocessor(vqa):
    x = GOOD | {"text": [ASKED, " "]}
    for call in (
        lambda: vqa.fit(x, ANSWERS, verbose=0),
        lambda: vqa.evaluate(x, ANSWERS, verbose=0),
        lambda: vqa.fit(GOOD, ANSWERS, validation_data=(x, ANSWERS), verbose=0),
        lambda: vqa.fit(GOOD, ["blue", "blau"], verbose=0),
    ):
        told = r"text\[1\]|y='blau'$"
        with pytest.raises(ValueError, match=told) as caught:
            call()
        assert type(caught.value) is ValueError
        assert len(str(caught.value)) < 600


@FASTEST
def test_errors_of_others_stay_as_they_are(vqa):
    tf = pytest.importorskip("tensorflow")

    def fail(x):
        raise ValueError("not ours")

    dataset = tf.data.Dataset.from_tensors(GOOD).map(
        lambda x: {
            **x,
            "text": tf.ensure_shape(
                tf.numpy_function(fail, [x["text"]], tf.string), [2]
            ),
        }
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="not ours"):
        vqa.predict(dataset, verbose=0)


UNITS = ["yes", "no", "red", "blue"]
LABELS = np.eye(2, 4, dtype="float32")
RAW = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")


def tensor(x):
    return {k: keras.ops.convert_to_tensor(v) for k, v in x.items()}


def dataset(*batch):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch if len(batch) > 1 else batch[0])


# Entries that take features, each with the arguments `(task, features)`.
ENTRIES = {
    "fit": lambda m, x: m.fit(x, LABELS, verbose=0),
    "fit dataset": lambda m, x: m.fit(dataset(x, LABELS), verbose=0),
    "tf.data": lambda m, x: list(
        dataset(x, LABELS).map(m.preprocess_samples).as_numpy_iterator()
    ),
    "fit generator": lambda m, x: m.fit(
        ((x, LABELS) for _ in "a"), steps_per_epoch=1, verbose=0
    ),
    "validation": lambda m, x: m.fit(
        features(batch=2), LABELS, validation_data=(x, LABELS), verbose=0
    ),
    "evaluate": lambda m, x: m.evaluate(x, LABELS, verbose=0),
    "predict": lambda m, x: m.predict(x, verbose=0),
    "predict dataset": lambda m, x: m.predict(dataset(x), verbose=0),
    "train_on_batch": lambda m, x: m.train_on_batch(x, LABELS),
    "train_on_batch tensor": lambda m, x: m.train_on_batch(tensor(x), LABELS),
    "test_on_batch": lambda m, x: m.test_on_batch(x, LABELS),
    "predict_on_batch": lambda m, x: m.predict_on_batch(x),
    "predict_features": lambda m, x: m.predict_features(x),
    "task": lambda m, x: m(x),
    "task tensor": lambda m, x: m(tensor(x)),
    "backbone": lambda m, x: m.backbone(x),
    "backbone tensor": lambda m, x: m.backbone(tensor(x)),
    "attention_maps": lambda m, x: m.backbone.attention_maps(x),
}
# As raw pictures come: bytes, their floats, after resizing beyond the range,
# and with the mean of a data set subtracted, but not divided.
RAW_FORMS = {
    "uint8": RAW,
    "int32": RAW.astype("int32"),
    "bool": RAW > 127,
    "floats": RAW.astype("float32"),
    "resized": RAW * 1.1 - 9.0,
    "centered": 20.0 - RAW,
}


@pytest.fixture(scope="module")
def by_features():
    """A task that takes features."""
    return eager(kbt.BridgeTowerVQA(randomise(shallow()), answers=UNITS))


@pytest.mark.parametrize("entry", ENTRIES)
def test_raw_pictures_are_no_features(entry, by_features):
    quick = entry in ("fit", "predict dataset", "task tensor")
    for images in RAW_FORMS.values() if quick else (RAW,):
        told = "`images` must be normalized floats"
        with pytest.raises(Exception, match=told) as caught:
            ENTRIES[entry](by_features, {**features(batch=2), "images": images})
        assert entry == "tf.data" or type(caught.value) is ValueError


@pytest.mark.parametrize("entry", some_everywhere(ENTRIES, "tf.data"))
def test_normalized_pictures_of_any_statistics_are_features(entry, by_features):
    pixels = RAW / 255
    for mean, std in ((0.0, 1.0), (0.5, 0.5), (0.45, 0.04)):
        made = ((pixels - mean) / std).astype("float32")
        made[0, :4] = 0  # padding
        ENTRIES[entry](by_features, {**features(batch=2), "images": made})


@FASTEST
def test_statistics_of_the_preprocessor_are_known():
    converter = BridgeTowerImageConverter(32, mean=(0, 0, 0), std=[1 / 255] * 3)
    made = kbt.BridgeTowerVQAPreprocessor(tokenizer(), converter, UNITS)
    task = kbt.BridgeTowerVQA(shallow(), made)
    x = made({"images": RAW, "text": ["a", "b"]})
    assert x["images"].max() > 254
    task.predict_features(x)
    task(x)
    with pytest.raises(ValueError, match="normalized floats"):
        task({**x, "images": x["images"] * 1.1})


@keras.saving.register_keras_serializable(package="test")
class RawPixels(keras.Model):
    """An image encoder that normalizes pixels from 0 to 255 itself."""

    def __init__(self, **kwargs):
        x = images = keras.Input((32, 32, 3))
        x = keras.layers.Rescaling(1 / 255)(x)
        x = keras.layers.Conv2D(16, 8, 8)(x)
        x = keras.layers.Reshape((16, 16))(x)
        super().__init__(images, x, **kwargs)


@kbt.hidden_states.register(RawPixels)
def _(encoder):
    return [encoder.output]


@FASTEST
def test_an_encoder_that_rescales_takes_raw_pictures():
    model = backbone(RawPixels(), roberta(layers=1), num_layers=1)
    task = eager(kbt.BridgeTowerVQA(model, answers=UNITS))
    for entry in ENTRIES.values():
        entry(task, {**features(batch=2), "images": RAW})
    task({**features(batch=2), "images": RAW.astype("float32")})


@FASTEST
@pytest.mark.parametrize("name", every_task.TASKS)
def test_predictions_of_no_rows_have_the_shapes_of_others(name, by_features):
    task = every_task.make(name, by_features.backbone)
    x = every_task.rows(every_task.raw(name), 0, 2)
    x = {k: np.stack(v) if k == "images" else v for k, v in x.items()}
    expected = task.predict(x, verbose=0)
    made = task.predict(every_task.rows(x, 0, 0), verbose=0)
    assert shapes(made) == shapes(every_task.rows(expected, 0, 0))
    given = task.preprocessor(x)
    given = given[0] if isinstance(given, tuple) else given
    made = task.predict_features(every_task.rows(given, 0, 0))
    assert shapes(made) == shapes(every_task.rows(expected, 0, 0))


def shapes(outputs):
    return keras.tree.map_structure(lambda x: (x.shape, x.dtype), outputs)


def test_no_rows_of_every_source(by_features):
    x = features(batch=2)
    for empty in (every_task.rows(x, 0, 0), dataset(x).take(0)):
        made = by_features.predict(empty, verbose=0)
        assert (made.shape, made.dtype) == ((0, 4), "float32")
    for verb in (by_features.fit, by_features.evaluate):
        with pytest.raises(ValueError, match="at least one sample"):
            verb(every_task.rows(x, 0, 0), LABELS[:0])
