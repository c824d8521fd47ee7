"""The authors' transforms, against Pillow, NumPy formulas and closed forms."""

import math

import numpy as np
import pytest
from builders import ONE_BACKEND
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

from keras_bridgetower.data.augment import ops
from keras_bridgetower.data.augment import transforms
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD

pytestmark = ONE_BACKEND


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    rough = rng.integers(20, 230, (9, 12, 3)).astype("uint8")
    return Image.fromarray(rough).resize((96, 72), Image.Resampling.BICUBIC)


def pixels(image):
    return np.asarray(image).astype("int64")


def values(name, level):
    """Return the value of each op of a list at a level, by its function."""
    return {
        op.function: op.low + level * (op.high - op.low)
        for op in getattr(ops, name)
    }


# The value of each operation at the levels 9/30 and 7/30, by the paper.
RAND_AUGMENT = {
    ops.rotate: (9, 7),
    **dict.fromkeys((ops.shear_x, ops.shear_y), (0.09, 0.07)),
    **dict.fromkeys((ops.translate_x, ops.translate_y), (30, 23.3)),
    ops.solarize: (76.8, 59.7),
    ops.solarize_add: (33, 25.7),
    ops.posterize: (1.2, 0.9333),
    **dict.fromkeys(
        (ops.colour, ops.contrast, ops.brightness, ops.sharpness), (0.64, 0.52)
    ),
    **dict.fromkeys((ops.auto_contrast, ops.equalize), (0.3, 0.233)),
}


def test_values_at_the_authors_levels():
    nine, seven = values("RAND_AUGMENT", 9 / 30), values("RAND_AUGMENT", 7 / 30)
    assert set(RAND_AUGMENT) == set(nine) and len(ops.RAND_AUGMENT) == 14
    for function, wanted in RAND_AUGMENT.items():
        got = nine[function], seven[function]
        np.testing.assert_allclose(got, wanted, rtol=3e-3)
    five = values("RANDOM_AUGMENT", 0.5)
    assert len(ops.RANDOM_AUGMENT) == 10
    same = five[ops.brightness], five[ops.sharpness]
    assert same == pytest.approx((1.0, 1.0), abs=1e-12)
    assert five[ops.smooth_rotate] == 15 and five[ops.smooth_shear_x] == 0.15
    assert five[ops.smooth_translate_y] == 5
    # Only movements have two signs.
    for op in ops.RAND_AUGMENT + ops.RANDOM_AUGMENT:
        moves = {"rotate", "shear", "translate"} & {
            *op.function.__name__.split("_")
        }
        assert op.signs == ((1, -1) if moves else (1,))


def test_posterize_leaves_one_bit(picture):
    for bits in (1.2, 0.93):
        got = pixels(ops.posterize(picture, bits))
        np.testing.assert_array_equal(got, pixels(picture) & 0b10000000)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (ops.colour, lambda x: ImageEnhance.Color(x).enhance(0.64)),
        (ops.contrast, lambda x: ImageEnhance.Contrast(x).enhance(0.64)),
        (ops.brightness, lambda x: ImageEnhance.Brightness(x).enhance(0.64)),
        (ops.sharpness, lambda x: ImageEnhance.Sharpness(x).enhance(0.64)),
        (ops.auto_contrast, ImageOps.autocontrast),
        (ops.equalize, ImageOps.equalize),
    ],
)
def test_values_are_pillows(picture, ours, theirs):
    wanted = pixels(theirs(picture))
    np.testing.assert_array_equal(pixels(ours(picture, 0.64)), wanted)
    assert (wanted != pixels(picture)).any()


def test_solarize_formulas(picture):
    x = pixels(picture)
    np.testing.assert_array_equal(
        pixels(ops.solarize(picture, 76.8)), np.where(x < 76.8, x, 255 - x)
    )
    for addition in (33, 25.666666):
        more = np.clip(x + addition, 0, 255).astype("uint8").astype("int64")
        np.testing.assert_array_equal(
            pixels(ops.solarize_add(picture, addition)),
            np.where(more < 128, more, 255 - more),
        )


def taken(x, to_x, to_y):
    """Take each pixel from the nearest place, in Pillow's coordinates."""
    height, width, _ = x.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    at_x, at_y = to_x(columns, rows), to_y(columns, rows)
    inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
    found = np.zeros_like(x)
    found[inside] = x[
        np.floor(at_y[inside]).astype(int), np.floor(at_x[inside]).astype(int)
    ]
    return found


@pytest.mark.parametrize("sign", [1, -1])
def test_nearest_geometry(picture, sign):
    x = pixels(picture)
    v, move, angle = 0.09 * sign, 30 * sign, math.radians(9 * sign)
    cos, sin = math.cos(angle), math.sin(angle)
    cx, cy = picture.width / 2, picture.height / 2
    forms = [
        (ops.shear_x, v, lambda a, b: a + v * b, lambda a, b: b),
        (ops.shear_y, v, lambda a, b: a, lambda a, b: b + v * a),
        (ops.translate_x, move, lambda a, b: a + move, lambda a, b: b),
        (ops.translate_y, move, lambda a, b: a, lambda a, b: b + move),
        (
            ops.rotate,
            math.degrees(angle),
            # Counter-clockwise, where y points down.
            lambda a, b: cos * (a - cx) - sin * (b - cy) + cx,
            lambda a, b: sin * (a - cx) + cos * (b - cy) + cy,
        ),
    ]
    for function, value, to_x, to_y in forms:
        got = pixels(function(picture, value))
        # Pillow's fixed point may round the other way at a boundary.
        wanted = taken(x, to_x, to_y)
        assert (got != wanted).any(-1).mean() < 0.005
        assert (got == 0).all(-1).mean() > 0.01
    exact = pixels(ops.translate_x(picture, 30))
    np.testing.assert_array_equal(exact[:, :-30], x[:, 30:])
    assert (exact[:, -30:] == 0).all()


def ramp():
    """Return a plane, on which interpolation is exact."""
    rows, columns = np.mgrid[:60, :80]
    return np.stack([2 * columns, 3 * rows, columns + rows], -1).astype("uint8")


@pytest.mark.parametrize("sign", [1, -1])
def test_interpolated_geometry(sign):
    x = ramp()
    image = Image.fromarray(x)
    rows, columns = np.mgrid[:60, :80].astype("float64")
    v, angle = 0.15 * sign, math.radians(15 * sign)
    cos, sin = math.cos(angle), math.sin(angle)
    # By OpenCV's definitions: pixel (i, j) is at (i, j), the center (40, 30).
    forms = [
        (ops.smooth_shear_x, v, columns - v * rows, rows),
        (ops.smooth_shear_y, v, columns, rows - v * columns),
        (ops.smooth_translate_x, 5 * sign, columns + 5 * sign, rows),
        (ops.smooth_translate_y, 5 * sign, columns, rows + 5 * sign),
        (
            ops.smooth_rotate,
            15 * sign,
            cos * (columns - 40) - sin * (rows - 30) + 40,
            sin * (columns - 40) + cos * (rows - 30) + 30,
        ),
    ]
    for function, value, at_x, at_y in forms:
        got = pixels(function(image, value))
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
    assert abs(area.std() - 0.2 / math.sqrt(12)) < 0.002
    assert abs(np.log(boxes[:, 2] / boxes[:, 3]).mean()) < 0.01
    free = 600 - boxes[:, 2]
    assert abs((boxes[:, 0] / free).mean() - 0.5) < 0.02


def test_long_pictures_get_a_central_crop():
    crop = transforms.RandomResizedCrop((0.9, 1.0))
    for size, box in (
        ((1000, 100), (433, 0, 133, 100)),
        ((100, 1000), (0, 433, 100, 133)),
    ):
        assert crop.box(size, np.random.default_rng(0)) == box


def test_crop_is_pillows_crop_then_resize(picture):
    crop = transforms.RandomResizedCrop()
    got = crop(picture, 32, np.random.default_rng(3), ())
    left, top, width, height = crop.box(picture.size, np.random.default_rng(3))
    wanted = picture.crop((left, top, left + width, top + height)).resize(
        (32, 32), Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(pixels(got), pixels(wanted))


SIDED = ["The cat left of the dog", "is it on the RIGHT?", "leftmost one"]
PLAIN = ["a bright cleft", "copyright", "a cat"]


def test_flip_keeps_sided_texts(picture):
    rng = np.random.default_rng(0)

    def mirrored(when, text):
        step = transforms.Flip(when)
        built = [pixels(step(picture, 0, rng, (text,))) for _ in range(200)]
        return np.mean([(m != pixels(picture)).any() for m in built])

    for text in SIDED:
        assert mirrored("unless_sided", text) == 0
        assert 0.4 < mirrored("always", text) < 0.6
    for text in PLAIN:
        assert 0.4 < mirrored("unless_sided", text) < 0.6


def test_table_of_transforms():
    flips = {
        name: [s.when for s in steps if isinstance(s, transforms.Flip)]
        for name, (steps, _) in transforms.TRANSFORMS.items()
    }
    for name, when in flips.items():
        if name.endswith("_official"):
            assert when == ["always"]
            assert flips[name.removesuffix("_official")] == ["unless_sided"]
    assert flips["blip_randaug_wohf"] == flips["clip_randaug"] == []
    draws = {
        name: [
            (len(s.ops), s.count, round(s.level, 3), s.probability)
            for s in steps
            if isinstance(s, ops.RandomOps)
        ]
        for name, (steps, _) in transforms.TRANSFORMS.items()
    }
    assert draws["clip_randaug"] == [(14, 2, 0.3, 1.0)]
    assert draws["blip_randaug_wc"] == [(14, 2, 0.233, 1.0)]
    assert draws["blip_randaug_wohf"] == [(10, 2, 0.5, 0.5)]
    assert draws["blip"] == draws["clip"] == []
    scales = {
        name: steps[0].scale
        for name, (steps, _) in transforms.TRANSFORMS.items()
        if isinstance(steps[0], transforms.RandomResizedCrop)
    }
    assert scales["blip_randaug_pretrain"] == (0.2, 1.0)
    assert scales["blip_randaug"] == scales["blip_randaug_wc"] == (0.5, 1.0)
    assert transforms.transform("clip").mean == MEAN
    assert transforms.transform("clip").std == STD
    assert transforms.transform("vit_randaug").mean == (0.5, 0.5, 0.5)
    assert transforms.transform("imagenet").std == (0.229, 0.224, 0.225)


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
    boxes = transforms.RandomResizedCrop().box((640, 480), rng)
    assert boxes == BOX
    draws = [change(picture, seed=(0, 0, i)).mean() for i in range(3)]
    np.testing.assert_allclose(draws, MEANS, atol=0.05)


BOX = (65, 50, 531, 418)
MEANS = (65.74, 124.00, 126.32)


@pytest.mark.parametrize(
    "name, call",
    [
        ("name", lambda: transforms.transform("clipp")),
        ("image_size", lambda: transforms.transform("clip", 0)),
        ("resizer", lambda: transforms.transform("hf", 8, "tf")),
        ("when", lambda: transforms.Flip("sometimes")),
        (
            "steps",
            lambda: transforms.Transform(8, ())(np.zeros((9, 9, 3), "uint8")),
        ),
    ],
)
def test_wrong_arguments_are_rejected(name, call):
    with pytest.raises(ValueError, match=f"`{name}` must"):
        call()


def test_missing_torch_is_reported(monkeypatch):
    def others(name):
        return None if name == "torch" else True

    monkeypatch.setattr("importlib.util.find_spec", others)
    with pytest.raises(ImportError, match="resizer='torch' needs torch"):
        transforms.transform("clip", resizer="torch")
    assert transforms.transform("clip") == transforms.transform("clip", 288)
