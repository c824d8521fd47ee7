"""Pictures in a run: the output of a stream and the input of a model."""

import io
import warnings

import numpy as np
import pytest
import streams
from builders import FASTEST
from builders import eager
from builders import shallow
from builders import tokenizer
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.preprocessing.images import load_image
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe
from keras_bridgetower.training.runs.checkpoint import Checkpoint

pytestmark = FASTEST
# The tiny encoders' side, and a divisor by which it shrinks to 20 + 12.
SIDE, DIVISOR = 32, 20


def noise(height, width):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3)).astype("uint8")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    rows = [streams.record("vqa", i, 1) for i in range(4)]
    return streams.write(tmp_path_factory.mktemp("set"), rows)


def task(mode="hf", **values):
    converter = kbt.BridgeTowerImageConverter(SIDE, mode, DIVISOR, **values)
    labels = streams.LABELS["vqa"]
    built = kbt.BridgeTowerVQAPreprocessor(tokenizer(), converter, labels)
    return eager(kbt.BridgeTowerVQA(shallow(), built))


def test_a_black_frame_is_refused(reader):
    stream = Stream(reader, 2, transform("blip", SIDE))
    framed, good = task(), task("squash")
    data = stream.dataset(epochs=1)
    # The input of a model: black at all four sides.
    x = stream.batch(0)[0]["images"]
    edge = framed.preprocessor.image_converter(x)[:, 0]
    assert np.allclose(edge, edge[:1, :1], atol=1e-6)
    own = {"images": [noise(SIDE, SIDE)], "text": ["why?"]}, np.ones((1, 4))
    for call in (
        lambda model: model.fit(data, verbose=0),
        lambda model: model.evaluate(data, verbose=0),
        lambda model: model.predict(data, verbose=0),
        lambda model: model.fit(*own, validation_data=data, verbose=0),
    ):
        with pytest.raises(ValueError, match="black frame.*size_divisor=20"):
            call(framed)
    good.fit(data, verbose=0)


@pytest.mark.parametrize(
    "model, built, message",
    [
        (lambda: task(), ("blip", SIDE), "image_mode='squash'"),
        (lambda: task("squash"), ("blip", 2 * SIDE), "image_size=64"),
        (lambda: task("squash"), ("vit", SIDE), "one mean and one standard"),
    ],
)
def test_a_run_compares_transform_and_converter(
    reader, tmp_path, model, built, message
):
    stream = Stream(reader, 2, transform(*built))
    with pytest.raises(ValueError, match=message):
        Checkpoint(tmp_path / "run", stream).fit(model(), 1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("evaluated, mode", [("clip", "crop"), ("hf", "hf")])
def test_recipes_save_the_mode_of_their_evaluation(evaluated, mode):
    recipe = paper.get("vqa_base").tiny().replace(eval_transform=evaluated)
    labels = streams.LABELS["vqa"]
    preset = "bridgetower_tiny_easy_pretrain"
    model = task_of_recipe.from_preset(recipe, preset, labels, False)
    converter = model.preprocessor.image_converter
    assert converter.mode == mode
    # The transform of the score, and the converter of the saved task.
    picture = noise(40, 90)
    built = transform(evaluated, recipe.image_size)(picture)
    np.testing.assert_array_equal(converter(picture), converter(built))


def test_a_build_refuses_pictures_that_training_would(tmp_path, monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    (tmp_path / "0.png").write_bytes(file.getvalue())
    # Above it Pillow only warns, up to twice as many pixels.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="at most 500 pixels"):
            load_image(file.getvalue())
        picture = FilePicture(str(tmp_path / "0.png"))
        assert "at most 500 pixels" in picture.problem()
        sample = streams.Sample("q", "why?", (0,), (1.0,))
        record = streams.Record("k", (file.getvalue(),), (sample,), "s")
        with pytest.raises(ValueError, match="at most 500 pixels"):
            streams.write(tmp_path / "set", [record], num_shards=1)
