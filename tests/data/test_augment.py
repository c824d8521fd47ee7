"""The authors' transforms, against Pillow, NumPy formulas and closed forms."""

import math
import pathlib

import numpy as np
import pytest
from builders import ONE_BACKEND
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

from keras_bridgetower.data.augment import transforms
from keras_bridgetower.preprocessing.images import decode_image

pytestmark = ONE_BACKEND


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    rough = rng.integers(20, 230, (9, 12, 3)).astype("uint8")
    return Image.fromarray(rough).resize((96, 72), Image.Resampling.BICUBIC)


def pixels(image):
    return np.asarray(image).astype("int64")


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("colour", lambda x: ImageEnhance.Color(x).enhance(0.64)),
        ("contrast", lambda x: ImageEnhance.Contrast(x).enhance(0.64)),
        ("brightness", lambda x: ImageEnhance.Brightness(x).enhance(0.64)),
        ("sharpness", lambda x: ImageEnhance.Sharpness(x).enhance(0.64)),
        ("auto_contrast", ImageOps.autocontrast),
        ("equalize", ImageOps.equalize),
        # Not fewer than one bit.
        ("posterize", lambda x: pixels(x) & 0b10000000),
    ],
)
def test_values_are_pillows(picture, ours, theirs):
    got = pixels(getattr(transforms, ours)(picture, 0.64))
    np.testing.assert_array_equal(got, pixels(theirs(picture)))


def test_solarize_formulas(picture):
    x = pixels(picture)
    got = pixels(transforms.solarize(picture, 76.8))
    np.testing.assert_array_equal(got, np.where(x < 76.8, x, 255 - x))
    for addition in (33, 25.666666):
        more = np.clip(x + addition, 0, 255).astype("uint8").astype("int64")
        got = pixels(transforms.solarize_add(picture, addition))
        inverted = np.where(more < 128, more, 255 - more)
        np.testing.assert_array_equal(got, inverted)


def geometry(slope, move, degrees, center):
    """By name: the value of a change, and where it takes a pixel from."""
    cos, sin = (f(math.radians(degrees)) for f in (math.cos, math.sin))
    cx, cy = center
    return {
        "shear_x": (slope, lambda x, y: (x + slope * y, y)),
        "shear_y": (slope, lambda x, y: (x, y + slope * x)),
        "translate_x": (move, lambda x, y: (x + move, y)),
        "translate_y": (move, lambda x, y: (x, y + move)),
        # Counter-clockwise, where y points down.
        "rotate": (
            degrees,
            lambda x, y: (
                cos * (x - cx) - sin * (y - cy) + cx,
                sin * (x - cx) + cos * (y - cy) + cy,
            ),
        ),
    }


@pytest.mark.parametrize("sign", [1, -1])
def test_nearest_geometry(picture, sign):
    """In Pillow's coordinates, where pixel (i, j) is at (i, j) + 1/2."""
    x = pixels(picture)
    height, width, _ = x.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    center = width / 2, height / 2
    forms = geometry(0.09 * sign, 30 * sign, 9 * sign, center)
    for name, (value, place) in forms.items():
        got = pixels(getattr(transforms, name)(picture, value))
        at_x, at_y = (np.floor(at).astype(int) for at in place(columns, rows))
        inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        wanted = np.zeros_like(x)
        wanted[inside] = x[at_y[inside], at_x[inside]]
        # Pillow's fixed point may round the other way at a boundary.
        assert (got != wanted).any(-1).mean() < 0.005
        assert (got == 0).all(-1).mean() > 0.01


@pytest.mark.parametrize("sign", [1, -1])
def test_interpolated_geometry(sign):
    """By OpenCV's definitions, where pixel (i, j) is at (i, j)."""
    rows, columns = np.mgrid[:60, :80]
    # A plane, on which interpolation is exact.
    x = np.stack([2 * columns, 3 * rows, columns + rows], -1).astype("uint8")
    image = Image.fromarray(x)
    forms = geometry(0.15 * sign, 5 * sign, 15 * sign, (40, 30))
    for name, (value, place) in forms.items():
        # OpenCV shears in the other direction.
        value = -value if "shear" in name else value
        got = pixels(getattr(transforms, f"smooth_{name}")(image, value))
        at_x, at_y = place(columns, rows)
        inside = (at_x > 0) & (at_x < 79) & (at_y > 0) & (at_y < 59)
        wanted = np.stack([2 * at_x, 3 * at_y, at_x + at_y], -1)
        assert np.abs(got - wanted)[inside].max() <= 1
        far = (at_x < -1) | (at_x > 80) | (at_y < -1) | (at_y > 60)
        assert far.any() and (got[far] == 128).all()


def test_random_resized_crop_draws_as_torchvision():
    crop = transforms.RandomResizedCrop((0.5, 1.0))
    rng = np.random.default_rng(0)
    boxes = np.array([crop.box((640, 480), rng) for _ in range(4000)])
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (left + width <= 640).all()
    assert (top >= 0).all() and (top + height <= 480).all()
    area, ratio = width * height / (640 * 480), width / height
    assert 0.499 < area.min() < 0.51 and 0.9 < area.max() < 1.001
    assert 0.745 < ratio.min() and ratio.max() < 1.34
    # If a box always fits, the area is uniform, and so is the log of the ratio.
    small = transforms.RandomResizedCrop((0.1, 0.3))
    boxes = np.array([small.box((600, 600), rng) for _ in range(4000)])
    area = boxes[:, 2] * boxes[:, 3] / 600**2
    assert abs(area.mean() - 0.2) < 0.003
    assert abs(np.log(boxes[:, 2] / boxes[:, 3]).mean()) < 0.01


def test_long_pictures_get_a_central_crop():
    crop = transforms.RandomResizedCrop((0.9, 1.0))
    for size, box in (
        ((1000, 100), (433, 0, 133, 100)),
        ((100, 1000), (0, 433, 100, 133)),
    ):
        assert crop.box(size, np.random.default_rng(0)) == box


SIDED = ["The cat left of the dog", "is it on the RIGHT?", "leftmost one"]
PLAIN = ["a bright cleft", "copyright", "a cat"]


@pytest.mark.parametrize(
    "when, text",
    [("always", SIDED[0])] + [("unless_sided", x) for x in SIDED + PLAIN],
)
def test_flips(picture, when, text):
    rng = np.random.default_rng(0)
    step = transforms.Flip(when)
    built = [pixels(step(picture, 0, rng, ["a", text])) for _ in range(100)]
    mirrored = np.mean([(m != pixels(picture)).any() for m in built])
    kept = when == "unless_sided" and text in SIDED
    assert mirrored == pytest.approx(0 if kept else 0.5, abs=0.1)


@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_the_same_seed_gives_the_same_pixels(picture, name):
    change = transforms.transform(name, image_size=32)
    first = change(picture, seed=(0, 1, 2), texts=["a cat"])
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(
        first, change(np.asarray(picture), seed=(0, 1, 2), texts=["a cat"])
    )
    others = [change(picture, seed=(0, 1, i)) for i in range(3, 9)]
    random = "randaug" in name
    assert any((o != first).any() for o in others) == random


def test_stored_draws():
    """Compare with means that every platform and release must reproduce."""
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 256, (50, 70, 3)).astype("uint8")
    change = transforms.transform("blip_randaug_wc", 24)
    draws = [change(picture, seed=(0, 0, i)).mean() for i in range(3)]
    np.testing.assert_allclose(draws, (65.74, 124.00, 126.32), atol=0.05)


@pytest.mark.parametrize("change", ["blip", "clip", "blip_randaug_wc"])
def test_torch_resizes_as_pillow(change):
    package = pytest.importorskip("sklearn")
    folder = pathlib.Path(package.__file__).parent / "datasets/images"
    data = decode_image((folder / "china.jpg").read_bytes())
    wanted = transforms.transform(change)(data, seed=1).astype("int64")
    got = transforms.transform(change, resizer="torch")(data, seed=1)
    difference = np.abs(got - wanted)
    assert (difference > 0).mean() < 0.01
    # One level in each direction before random operations.
    if "randaug" not in change:
        assert 0 < difference.max() <= 2
