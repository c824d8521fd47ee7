"""Image transforms, from a picture to a square of one size.

A transform is a tuple of steps. `TRANSFORMS` has the authors' transforms by
name. Pillow and NumPy compute pixels on 8-bit values, and the caller seeds all
random draws, so the pixels are the same on every backend, in every process and
after every restart.

Source: `src/transforms` of the authors' BridgeTower and ManagerTower
repositories, the latter for names that begin with "albef"; torchvision's
`RandomResizedCrop`; RandAugment (Cubuk et al., 2020); BLIP's `RandomAugment`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing import images
from keras_bridgetower.preprocessing.geometry import RESIZERS
from keras_bridgetower.preprocessing.geometry import Square
from keras_bridgetower.preprocessing.geometry import place

# A text that forbids mirroring. Also matches "leftmost" and "right-hand". A
# match of "all right" is harmless.
SIDED = re.compile(r"\b(left|right)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing:
    """Abstract: a step that resizes by the function named `resizer`."""

    resizer: str = "pillow"

    def __post_init__(self):
        check_choice("resizer", self.resizer, tuple(RESIZERS))


@dataclasses.dataclass(frozen=True)
class Place(Resizing):
    """Resize to a square, like `BridgeTowerImageConverter` in a mode.

    Args:
        mode: str, `"crop"`, `"center"`, `"squash"` or `"hf"`.
        resizer: str, as in `transform`.
    """

    mode: str

    def __call__(self, image, side, rng, texts):
        return place(image, Square(side, self.mode), resizer=self.resizer)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Resizing):
    """Crop a random rectangle and resize it to a square.

    Args:
        scale: `(low, high)`, range of the share of the picture's area.
        ratio: `(low, high)`, range of width over height, drawn on a
            logarithmic scale.
        resizer: str, as in `transform`.
    """

    scale: tuple = (0.5, 1.0)
    ratio: tuple = (3 / 4, 4 / 3)

    def __call__(self, image, side, rng, texts):
        left, top, width, height = self.box(image.size, rng)
        # Crop first: Pillow's `resize` with a box reads pixels beyond it.
        image = image.crop((left, top, left + width, top + height))
        return RESIZERS[self.resizer](image, (side, side))

    def box(self, size, rng):
        """Draw a rectangle.

        Args:
            size: `(width, height)` of the picture.
            rng: `np.random.Generator`.

        Returns:
            `(left, top, width, height)`, ints: the first of ten draws that
            fits, or else the largest central rectangle within `ratio`.
        """
        full_width, full_height = size
        for _ in range(10):
            area = full_width * full_height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*map(math.log, self.ratio)))
            width = round(math.sqrt(area * ratio))
            height = round(math.sqrt(area / ratio))
            if 0 < width <= full_width and 0 < height <= full_height:
                top = int(rng.integers(full_height - height + 1))
                left = int(rng.integers(full_width - width + 1))
                return left, top, width, height
        low, high = self.ratio
        width = min(full_width, max(1, round(full_height * high)))
        height = min(full_height, max(1, round(full_width / low)))
        left, top = (full_width - width) // 2, (full_height - height) // 2
        return left, top, width, height


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirror left and right with probability 0.5.

    Args:
        when: str, `"always"`, like the authors, or `"unless_sided"`, to keep
            pictures whose text mentions left or right.
    """

    when: str = "unless_sided"

    def __post_init__(self):
        check_choice("when", self.when, ("unless_sided", "always"))

    def __call__(self, image, side, rng, texts):
        # Always draw, so that later draws do not depend on the text.
        mirrored = rng.random() < 0.5
        if self.when == "unless_sided":
            mirrored = mirrored and not any(map(SIDED.search, texts))
        return ImageOps.mirror(image) if mirrored else image


@dataclasses.dataclass(frozen=True)
class Transform:
    """A sequence of steps to a square picture of one size.

    Args:
        image_size: int, side of the output in pixels.
        steps: tuple of callables of the `PIL.Image`, the side, a generator
            and the texts.
        mean, std: three numbers each, the normalization of the model for
            values from 0 to 1. Not the transform but the model's image
            converter applies it. A stream rejects a converter with other
            numbers.

    Call arguments:
        image: a picture in any form that `load_image` reads.
        seed: int or sequence of ints, seed for `np.random.default_rng`.
        texts: sequence of str, the texts of the picture.
        name: str, the name of the picture in errors.

    Returns:
        uint8 array `(image_size, image_size, 3)`, which depends only on these
        arguments.

    Raises:
        ValueError: the picture cannot be read, or `steps` return one of
            another size.

    Example:

    ```python
    train = transform("blip_randaug_wc", image_size=288)
    picture = np.random.randint(0, 256, (480, 640, 3), "uint8")
    train(picture, seed=(0, 3, 17), texts=["a cat on the left"]).shape
    ```
    """

    image_size: int
    steps: tuple
    mean: tuple = images.MEAN
    std: tuple = images.STD

    def __call__(self, image, seed=0, texts=(), name="images"):
        return self.of_picture(images.open_image(image, name), seed, texts)

    def of_picture(self, image, seed=0, texts=()):
        """Transform a picture that is already an RGB `PIL.Image`."""
        rng = np.random.default_rng(seed)
        for step in self.steps:
            image = step(image, self.image_size, rng, texts)
        pixels = np.asarray(image)
        if pixels.shape != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"`steps` must return RGB pictures of {self.image_size} by "
                f"{self.image_size} pixels. Received: {pixels.shape}"
            )
        return pixels


# Operations on pictures, each a function of a picture and a value. Their names
# are part of the identity of a run, so they must not change. `RAND_AUGMENT`
# moves pixels without interpolation and fills with black. `RANDOM_AUGMENT`,
# BLIP's and ALBEF's list, interpolates and fills with gray.
NEAREST = {"resample": Image.Resampling.NEAREST, "fillcolor": (0, 0, 0)}
BILINEAR = {"resample": Image.Resampling.BILINEAR, "fillcolor": (128, 128, 128)}


def identity(image, value):
    return image


def auto_contrast(image, value):
    return ImageOps.autocontrast(image)


def equalize(image, value):
    return ImageOps.equalize(image)


def posterize(image, bits):
    # The authors' levels are 1.2 and 0.93 bits, but one bit must remain.
    return ImageOps.posterize(image, max(1, int(bits)))


def solarize(image, threshold):
    return ImageOps.solarize(image, threshold)


def solarize_add(image, addition):
    """Add to every pixel, then invert the values from 128."""
    table = np.clip(np.arange(256) + addition, 0, 255).astype("uint8")
    table = np.where(table < 128, table, 255 - table)
    return image.point(table.tolist() * 3)


def colour(image, factor):
    return ImageEnhance.Color(image).enhance(factor)


def contrast(image, factor):
    return ImageEnhance.Contrast(image).enhance(factor)


def brightness(image, factor):
    return ImageEnhance.Brightness(image).enhance(factor)


def sharpness(image, factor):
    return ImageEnhance.Sharpness(image).enhance(factor)


def rotate(image, degrees):
    """Rotate counter-clockwise about the center."""
    return image.rotate(degrees, **NEAREST)


def shear_x(image, slope):
    return _affine(image, (1, slope, 0, 0, 1, 0), NEAREST)


def shear_y(image, slope):
    return _affine(image, (1, 0, 0, slope, 1, 0), NEAREST)


def translate_x(image, pixels):
    return _affine(image, (1, 0, pixels, 0, 1, 0), NEAREST)


def translate_y(image, pixels):
    return _affine(image, (1, 0, 0, 0, 1, pixels), NEAREST)


# BLIP's list uses OpenCV, whose origin is the middle of the first pixel. The
# origin of Pillow is the corner of that pixel, hence the halves below.
def smooth_rotate(image, degrees):
    """Rotate about a point half a pixel right of and below the center."""
    center = (image.width / 2 + 0.5, image.height / 2 + 0.5)
    return image.rotate(degrees, center=center, **BILINEAR)


def smooth_shear_x(image, slope):
    return _affine(image, (1, -slope, slope / 2, 0, 1, 0), BILINEAR)


def smooth_shear_y(image, slope):
    return _affine(image, (1, 0, 0, -slope, 1, slope / 2), BILINEAR)


def smooth_translate_x(image, pixels):
    return _affine(image, (1, 0, pixels, 0, 1, 0), _smooth(pixels))


def smooth_translate_y(image, pixels):
    return _affine(image, (1, 0, 0, 0, 1, pixels), _smooth(pixels))


def _smooth(pixels):
    """Return options for a translation, which by whole pixels is exact."""
    nearest = BILINEAR | {"resample": Image.Resampling.NEAREST}
    return nearest if float(pixels).is_integer() else BILINEAR


def _affine(image, coefficients, filling):
    """Set pixel (x, y) to the one at `(a x + b y + c, d x + e y + f)`."""
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, **filling
    )


@dataclasses.dataclass(frozen=True)
class Op:
    """An operation and the range of its value.

    Args:
        function: callable of an RGB `PIL.Image` and a value.
        low, high: numbers, the value at the lowest and at the highest level.
        signs: tuple of numbers. The value is multiplied by a random one.
    """

    function: Callable
    low: float = 0.0
    high: float = 1.0
    signs: tuple = (1,)


@dataclasses.dataclass(frozen=True)
class RandomOps:
    """Draw operations with replacement and apply them.

    Args:
        ops: tuple of `Op`.
        count: int, number of operations to draw.
        level: float from 0 to 1, position of each operation's value in its
            range.
        probability: float from 0 to 1, probability of applying a drawn
            operation.
    """

    ops: tuple
    count: int
    level: float
    probability: float = 1.0

    def __call__(self, image, side, rng, texts):
        for i in rng.integers(len(self.ops), size=self.count):
            op = self.ops[i]
            if rng.random() < self.probability:
                value = op.low + self.level * (op.high - op.low)
                value *= op.signs[rng.integers(len(op.signs))]
                image = op.function(image, value)
        return image


_either_way = functools.partial(Op, signs=(1, -1))

RAND_AUGMENT = (
    Op(auto_contrast),
    Op(equalize),
    _either_way(rotate, 0, 30),
    Op(posterize, 0, 4),
    Op(solarize, 0, 256),
    Op(solarize_add, 0, 110),
    Op(colour, 0.1, 1.9),
    Op(contrast, 0.1, 1.9),
    Op(brightness, 0.1, 1.9),
    Op(sharpness, 0.1, 1.9),
    _either_way(shear_x, 0, 0.3),
    _either_way(shear_y, 0, 0.3),
    _either_way(translate_x, 0, 100),
    _either_way(translate_y, 0, 100),
)
RANDOM_AUGMENT = (
    Op(identity),
    Op(auto_contrast),
    Op(brightness, 0.1, 1.9),
    Op(sharpness, 0.1, 1.9),
    Op(equalize),
    _either_way(smooth_shear_x, 0, 0.3),
    _either_way(smooth_shear_y, 0, 0.3),
    _either_way(smooth_translate_x, 0, 10),
    _either_way(smooth_translate_y, 0, 10),
    _either_way(smooth_rotate, 0, 30),
)
# With changes of color.
RANDOM_AUGMENT_WC = (
    *RANDOM_AUGMENT,
    Op(solarize, 0, 256),
    Op(colour, 0.1, 1.9),
    Op(contrast, 0.1, 1.9),
    Op(posterize, 0, 4),
)

_RAND_9 = RandomOps(RAND_AUGMENT, count=2, level=9 / 30)
_RAND_7 = RandomOps(RAND_AUGMENT, count=2, level=7 / 30)
_BLIP_5 = RandomOps(RANDOM_AUGMENT, count=2, level=5 / 10, probability=0.5)
_ALBEF_7 = dataclasses.replace(_BLIP_5, level=7 / 10)
_ALBEF_7_WC = dataclasses.replace(_ALBEF_7, ops=RANDOM_AUGMENT_WC)
_HALF, _FIFTH = RandomResizedCrop(), RandomResizedCrop((0.2, 1.0))
_CLIP, _ALWAYS = Place("crop"), Flip("always")
_VIT = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# Steps and other arguments of `Transform` by the authors' names. Transforms of
# the authors that mirror pictures even if the text mentions a side end in
# "_official" here.
TRANSFORMS = {
    "hf": ((Place("hf"),), {}),
    "clip": ((_CLIP,), {}),
    "clip_randaug": ((_RAND_9, _CLIP), {}),
    "vit": ((_CLIP,), _VIT),
    "vit_randaug": ((_RAND_9, _CLIP), _VIT),
    "imagenet": ((_CLIP,), _IMAGENET),
    "imagenet_randaug": ((_RAND_9, _CLIP), _IMAGENET),
    "blip": ((Place("squash"),), {}),
    "blip_randaug": ((_HALF, Flip(), _BLIP_5), {}),
    "blip_randaug_official": ((_HALF, _ALWAYS, _BLIP_5), {}),
    "blip_randaug_wc": ((_HALF, Flip(), _RAND_7), {}),
    "blip_randaug_wc_official": ((_HALF, _ALWAYS, _RAND_7), {}),
    "blip_randaug_wohf": ((_HALF, _BLIP_5), {}),
    "blip_randaug_pretrain": ((_FIFTH, Flip(), _BLIP_5), {}),
    "blip_randaug_pretrain_official": ((_FIFTH, _ALWAYS, _BLIP_5), {}),
    "albef": ((Place("squash"),), {}),
    "albef_randaug_wc": ((_HALF, Flip(), _ALBEF_7_WC), {}),
    "albef_randaug_wc_official": ((_HALF, _ALWAYS, _ALBEF_7_WC), {}),
    "albef_randaug_wohf": ((_HALF, _ALBEF_7), {}),
}


def transform(name, image_size=288, resizer="pillow"):
    """Return a transform by its name.

    Args:
        name: str, a key of `TRANSFORMS`. For evaluation: `"clip"` (center
            crop), `"blip"` or `"albef"` (resize without keeping the aspect
            ratio), `"hf"` (as in transformers). For training: a name with
            `"randaug"` and the same first word.
        image_size: int, side of the pictures in pixels.
        resizer: str, `"pillow"` or `"torch"`. The latter is three times as
            fast, and one value in a thousand differs by 1. It needs PyTorch,
            with any backend.

    Returns:
        `Transform`.

    Raises:
        ValueError: an unknown name, or a size that is not a positive integer.
        ImportError: PyTorch is needed but not installed.

    Example:

    ```python
    transform("blip_randaug_wohf", image_size=576)
    ```
    """
    check_choice("name", name, tuple(TRANSFORMS))
    check_count("image_size", image_size)
    steps, values = TRANSFORMS[name]
    steps = tuple(
        dataclasses.replace(step, resizer=resizer)
        if isinstance(step, Resizing)
        else step
        for step in steps
    )
    return Transform(int(image_size), steps, **values)
