"""Image transforms, from a picture to a square of one size.

A transform is a tuple of steps. `TRANSFORMS` has the authors' transforms by
name. Pillow and NumPy compute pixels on 8-bit values, and the caller seeds all
random draws, so the pixels are the same on every backend, in every process and
after every restart.

Source: `src/transforms` of the authors' BridgeTower repository; torchvision's
`RandomResizedCrop`; RandAugment (Cubuk et al., 2020); BLIP's `RandomAugment`.
"""

import dataclasses
import math
import re

import numpy as np
from PIL import Image

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.data.augment import ops
from keras_bridgetower.preprocessing.geometry import RESIZERS
from keras_bridgetower.preprocessing.geometry import check_resizer
from keras_bridgetower.preprocessing.geometry import place
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD
from keras_bridgetower.preprocessing.images import open_image

# Also matches "leftmost" and "right-hand". A match of "all right" is harmless.
SIDED = re.compile(r"\b(left|right)", re.IGNORECASE)


def is_sided(texts):
    """Return True if a text mentions left or right, and forbids mirroring.

    Args:
        texts: sequence of str.

    Example:

    ```python
    is_sided(["the cat left of the dog"])  # True
    ```
    """
    return any(SIDED.search(text) for text in texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing:
    """Abstract: a step that resizes by the function named `resizer`."""

    resizer: str = "pillow"

    def __post_init__(self):
        check_resizer(self.resizer)


@dataclasses.dataclass(frozen=True)
class Place(Resizing):
    """Resize to a square, like `BridgeTowerImageConverter` in a mode.

    Args:
        mode: str, `"crop"`, `"squash"` or `"hf"`.
        resizer: str, as in `transform`.
    """

    WRITTEN_AS = "Place(resizer={resizer}, mode={mode})"

    mode: str

    def __call__(self, image, side, rng, texts):
        return place(image, side, self.mode, resizer=self.resizer)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Resizing):
    """Crop a random rectangle and resize it to a square.

    Args:
        scale: `(low, high)`, range of the share of the picture's area.
        ratio: `(low, high)`, range of width over height, drawn on a
            logarithmic scale.
        resizer: str, as in `transform`.
    """

    WRITTEN_AS = (
        "RandomResizedCrop(resizer={resizer}, scale={scale}, ratio={ratio})"
    )

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
        return (
            (full_width - width) // 2,
            (full_height - height) // 2,
            width,
            height,
        )


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirror left and right with probability 0.5.

    Args:
        when: str, `"always"`, like the authors, or `"unless_sided"`, to keep
            pictures whose text mentions left or right.
    """

    WRITTEN_AS = "Flip(when={when})"

    when: str = "unless_sided"

    def __post_init__(self):
        check_choice("when", self.when, ("unless_sided", "always"))

    def __call__(self, image, side, rng, texts):
        # Always draw, so that later draws do not depend on the text.
        mirrored = rng.random() < 0.5
        if mirrored and (self.when == "always" or not is_sided(texts)):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


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
        ValueError: the picture cannot be read, or the steps return another
            size.

    Example:

    ```python
    train = transform("blip_randaug_wc", image_size=288)
    picture = np.random.randint(0, 256, (480, 640, 3), "uint8")
    train(picture, seed=(0, 3, 17), texts=["a cat on the left"]).shape
    ```
    """

    WRITTEN_AS = (
        "Transform(image_size={image_size}, steps={steps}, mean={mean}, "
        "std={std})"
    )

    image_size: int
    steps: tuple
    mean: tuple = MEAN
    std: tuple = STD

    def __call__(self, image, seed=0, texts=(), name="images"):
        return self.of_picture(open_image(image, name), seed, texts)

    def of_picture(self, image, seed=0, texts=()):
        """Transform a picture that is already an RGB `PIL.Image`."""
        rng = np.random.default_rng(seed)
        for step in self.steps:
            image = step(image, self.image_size, rng, texts)
        if image.size != (self.image_size, self.image_size):
            raise ValueError(
                "`steps` must leave pictures of `image_size`. End with "
                f"`Place('crop')`. Received: {image.size} pixels, "
                f"image_size={self.image_size}"
            )
        return np.asarray(image)


_RAND_9 = ops.RandomOps(ops.RAND_AUGMENT, count=2, level=9 / 30)
_RAND_7 = ops.RandomOps(ops.RAND_AUGMENT, count=2, level=7 / 30)
_BLIP_5 = ops.RandomOps(
    ops.RANDOM_AUGMENT, count=2, level=5 / 10, probability=0.5
)
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
}


def transform(name, image_size=288, resizer="pillow"):
    """Return a transform by its name.

    Args:
        name: str, a key of `TRANSFORMS`. For evaluation: `"clip"` (center
            crop), `"blip"` (resize without keeping the aspect ratio), `"hf"`
            (as in transformers). For training: a name with `"randaug"` and
            the same first word.
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
    return Transform(image_size, steps, **values)
