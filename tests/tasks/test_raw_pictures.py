"""Pictures of every form in verbs, `predict` and `fit`, and their errors."""

import io
import sys
import traceback

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import slow_on
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


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Two pictures of one size, and a third of another, in every form."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (side, 30, 3), "uint8") for side in (40, 40, 50)
    ]
    paths = []
    for i, array in enumerate(arrays):
        paths.append(tmp_path_factory.mktemp("pictures") / f"{i}.png")
        Image.fromarray(array).save(paths[-1])
    data = [path.read_bytes() for path in paths]
    names = [str(path) for path in paths]
    return {
        "arrays of two sizes": arrays,
        "a tuple of arrays": tuple(arrays),
        "paths": paths,
        "strings": names,
        "NumPy strings": [np.str_(name) for name in names],
        "an array of strings": np.array(names),
        "an array of objects": np.array(paths, object),
        "PIL": [Image.fromarray(array) for array in arrays],
        "bytes": data,
        "BytesIO": [io.BytesIO(of) for of in data],
        "mixed": [arrays[0], paths[1], Image.fromarray(arrays[2])],
        "tensors": [keras.ops.convert_to_tensor(array) for array in arrays],
    }


@FASTEST
def test_every_form_predicts_the_same(vqa, forms):
    texts = [ASKED] * 3
    expected = vqa.predict(
        {"images": forms["strings"], "text": texts}, verbose=0
    )
    answers = vqa.answer(forms["strings"], texts)
    for form, images in forms.items():
        x = {"images": images, "text": texts}
        predicted = vqa.predict(x, verbose=0)
        np.testing.assert_array_equal(predicted, expected, form)
    for images in (forms["tensors"], forms["PIL"], forms["BytesIO"]):
        assert vqa.answer(images, texts) == answers
    tensor = keras.ops.convert_to_tensor(
        np.stack(forms["a tuple of arrays"][:2])
    )
    # As many rows: a batch of another size may differ in the last digit.
    assert vqa.answer(tensor, texts[:2]) == vqa.answer(
        forms["strings"][:2], texts[:2]
    )
    single = vqa.answer(tensor[0], ASKED)
    for text in (np.array(ASKED), np.str_(ASKED)):
        assert vqa.answer(tensor[0], text) == single


def wrong(path):
    """Raw inputs of two rows, and what must be told of them."""
    good = np.zeros((2, 40, 30, 3), "uint8")
    asked = [ASKED] * 2
    return [
        (
            ["/no/a.png"] * 2,
            asked,
            ANSWERS,
            r"`images\[0\]` must be a readable",
        ),
        (
            [bytes(path)] * 2,
            asked,
            ANSWERS,
            r"`images\[0\]` must be an encoded",
        ),
        (good, [ASKED, " "], ANSWERS, r"`text` must not be empty.*text\[1\]"),
        (good, asked, ["blue", "blau"], r"`y` must hold ids.*y='blau'$"),
    ]


def last_line():
    lines = traceback.format_exception(*sys.exc_info())
    return "".join(lines).strip().splitlines()[-1]


@slow_on("tensorflow")
@pytest.mark.parametrize("as_column", [list, np.array])
def test_a_missing_file_is_named_by_its_row_in_the_data(vqa, forms, as_column):
    paths = forms["strings"][:1] * 7 + ["no/such.png"] + forms["strings"][:1]
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


def test_an_error_in_predict_has_our_type(vqa, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    x = {"images": [tmp_path / "a.png"], "text": [ASKED]}
    with pytest.raises(ValueError, match=r"^`images\[0\]` must be a readable"):
        vqa.predict(x, verbose=0)


@FASTEST
@pytest.mark.parametrize("case", range(4))
def test_the_last_line_is_the_sentence_and_the_type_ours(case, vqa, tmp_path):
    path = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(path)
    images, texts, y, told = wrong(path)[case]
    x = {"images": images, "text": texts}
    calls = [lambda: vqa.evaluate(x, y, verbose=0), lambda: vqa.fit(x, y)]
    if case < 3:
        calls = [
            lambda: vqa.answer(images, texts),
            lambda: vqa.predict(x, verbose=0),
            lambda: vqa.fit(
                {
                    "images": np.zeros((2, 9, 9, 3), "uint8"),
                    "text": [ASKED] * 2,
                },
                ANSWERS,
                validation_data=(x, y),
                verbose=0,
            ),
        ][: 3 if case < 2 else 2]
    for call in calls:
        with pytest.raises(ValueError, match=told) as caught:
            call()
        assert type(caught.value) is ValueError
        assert len(str(caught.value)) < 600
        try:
            raise caught.value
        except ValueError:
            assert last_line() == f"ValueError: {caught.value}"


@FASTEST
def test_layers_alone_raise_plainly(vqa):
    preprocessor = vqa.preprocessor
    picture = np.zeros((300, 300, 3), "uint8")
    for call, told in (
        (lambda: BridgeTowerImageConverter(32)(picture[..., :2]), "must have"),
        (lambda: preprocessor({"images": picture, "text": ""}), "not be empty"),
        (lambda: preprocessor.tokenizer(""), "not be empty"),
        (lambda: preprocessor({"images": picture}), "dict with the keys"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            call()
        assert len(str(caught.value)) < 400
        assert "Exception encountered" not in str(caught.value)


@FASTEST
def test_errors_of_others_stay_as_they_are(vqa):
    tf = pytest.importorskip("tensorflow")

    def fail(x):
        raise ValueError("not ours")

    dataset = tf.data.Dataset.from_tensors(
        {"images": np.zeros((1, 9, 9, 3), "uint8"), "text": [ASKED]}
    ).map(
        lambda x: {
            **x,
            "text": tf.ensure_shape(
                tf.numpy_function(fail, [x["text"]], tf.string), [1]
            ),
        }
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="not ours"):
        vqa.predict(dataset, verbose=0)
