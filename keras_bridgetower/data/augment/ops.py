"""Augmentation operations on Pillow images, and the authors' two lists of them.

`RAND_AUGMENT` moves pixels without interpolation and fills with black.
`RANDOM_AUGMENT`, BLIP's list, interpolates and fills with gray. Each operation
is a function of a picture and a value. The names of these functions are part of
the identity of a run, so they must not change.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps

NEAREST = {"resample": Image.Resampling.NEAREST, "fillcolor": (0, 0, 0)}
BILINEAR = {
    "resample": Image.Resampling.BILINEAR,
    "fillcolor": (128, 128, 128),
}


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

    WRITTEN_AS = (
        "Op(function={function}, low={low}, high={high}, signs={signs})"
    )

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

    WRITTEN_AS = (
        "RandomOps(ops={ops}, count={count}, level={level}, "
        "probability={probability})"
    )

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
