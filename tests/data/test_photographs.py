"""Decoding, resizing and cropping of real photographs, against the peers."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from builders import ONE_BACKEND
from PIL import Image

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import decode_image

pytestmark = ONE_BACKEND
SIDE = 288
# The path of each in its package. Chelsea the cat, a stereo pair, a JPEG of
# a thousand pixels, and some more.
NAMES = [
    ("skimage", f"data/{name}")
    for name in (
        *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
        *("retina.jpg", "hubble_deep_field.jpg"),
        *("motorcycle_left.png", "motorcycle_right.png"),
    )
] + [("sklearn", f"datasets/images/{name}.jpg") for name in ("china", "flower")]
# Width, height and side of the reference's table of transformers' processor.
SIZES = [
    *((640, 480, 288), (480, 640, 288), (512, 512, 288), (500, 333, 288)),
    *((427, 640, 288), (1000, 300, 288), (640, 480, 294), (512, 512, 294)),
]


def photograph(package, path):
    """Return the bytes of a JPEG."""
    installed = pytest.importorskip(
        package, reason=f"the photographs of `{package}` are not installed"
    )
    path = pathlib.Path(installed.__file__).parent / path
    data = path.read_bytes()
    if path.suffix == ".jpg":
        return data
    file = io.BytesIO()
    Image.open(path).convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES, ids=lambda n: pathlib.Path(n[1]).stem)
def test_equals_pillow_and_tensorflow(name):
    data = photograph(*name)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ours = np.asarray(decode_image(data))
    np.testing.assert_array_equal(ours, np.asarray(image))
    theirs = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")
    if not Image.open(io.BytesIO(data)).getexif():
        np.testing.assert_array_equal(ours, theirs)
    squashed = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    got = transform("blip", SIDE)(data)
    np.testing.assert_array_equal(got, np.asarray(squashed))
    short = min(image.size)
    size = [SIDE if n == short else int(SIDE * n / short) for n in image.size]
    resized = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    top, left = (int(round((n - SIDE) / 2)) for n in resized.shape[:2])
    cropped = transform("clip", SIDE)(data)
    np.testing.assert_array_equal(
        cropped, resized[top : top + SIDE, left : left + SIDE]
    )
    # TensorFlow's own resize differs by what the reference measured.
    resized = tf.image.resize(ours, (SIDE, SIDE), "bicubic", antialias=True)
    resized = np.clip(np.rint(resized), 0, 255)
    difference = np.abs(resized - got)
    assert difference.max() <= 4 and difference.mean() < 0.3


@pytest.mark.parametrize("name", NAMES, ids=lambda n: pathlib.Path(n[1]).stem)
@pytest.mark.parametrize("change", ["blip", "clip", "blip_randaug_wc"])
def test_torch_resizes_as_pillow(name, change):
    data = photograph(*name)
    wanted = transform(change, SIDE)(data, seed=1).astype("int64")
    got = transform(change, SIDE, resizer="torch")(data, seed=1)
    difference = np.abs(got - wanted)
    assert (difference > 0).mean() < 0.01
    # One level in each direction before random operations.
    if "randaug" not in change:
        assert 0 < difference.max() <= 2


@pytest.mark.parametrize(("width", "height", "side"), SIZES)
def test_hf_equals_the_processor_of_transformers(width, height, side):
    models = pytest.importorskip("transformers.models.bridgetower")
    peer = models.image_processing_pil_bridgetower.BridgeTowerImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"shortest_edge": side}
    )
    image = decode_image(photograph("sklearn", "datasets/images/china.jpg"))
    image = image.resize((width, height))
    wanted = peer(image, return_tensors="np")["pixel_values"][0]
    squares = transform("hf", side)(image)
    # In training: pictures by the transform, values by the converter.
    got = BridgeTowerImageConverter(side, mode="squash")(squares)
    np.testing.assert_allclose(got, wanted.transpose(1, 2, 0), atol=1e-6)


def test_statistics_of_transforms_reach_the_converter(tmp_path):
    change = transform("imagenet", SIDE)
    converter = BridgeTowerImageConverter(
        SIDE, mean=change.mean, std=change.std
    )
    pixels = change(photograph("sklearn", "datasets/images/flower.jpg"))
    scaled = (pixels / 255.0 - change.mean) / change.std
    np.testing.assert_allclose(converter(pixels), scaled, atol=1e-5)
    again = BridgeTowerImageConverter.from_config(converter.get_config())
    np.testing.assert_array_equal(again(pixels), converter(pixels))
    for mean, std in ((change.mean, (1, 1, 0)), ((0.5,), (0.5,))):
        with pytest.raises(ValueError, match="`mean` and `std` must"):
            BridgeTowerImageConverter(SIDE, mean=mean, std=std)
