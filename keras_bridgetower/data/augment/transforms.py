"""Pictures to squares of one size, as the authors trained and evaluated.

A transform is a tuple of steps; `TRANSFORMS` holds the authors' by their names.
All pixel work is Pillow and NumPy on 8-bit values, and every draw comes from a
generator that the caller seeds: the same pixels on every backend, in every
place, after every restart.

Source: `src/transforms` of the authors' BridgeTower repository; torchvision's
`RandomResizedCrop`; RandAugment (Cubuk et al., 2020); BLIP's `RandomAugment`.
"""

import dataclasses
import math
import re

import numpy as np
from PIL import Image

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.augment import ops
from keras_bridgetower.preprocessing.geometry import place
from keras_bridgetower.preprocessing.image_converter import MEAN
from keras_bridgetower.preprocessing.image_converter import STD
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.resizing import RESIZERS
from keras_bridgetower.preprocessing.resizing import check_resizer

# "leftmost" and "right-hand" too; that "all right" is spared costs nothing.
SIDED = re.compile(r"\b(left|right)", re.IGNORECASE)


def is_sided(texts):
    """Whether a text speaks of left or right, so that mirroring makes it false.

    Args:
        texts: sequence of str.

    Returns:
        bool.

    Example:

    ```python
    is_sided(["the cat left of the dog"])  # True
    ```
    """
    return any(SIDED.search(text) for text in texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing:
    """Abstract: a step that resizes, by a key of `RESIZERS`."""

    resizer: str = "pillow"

    def __post_init__(self):
        check_resizer(self.resizer)


@dataclasses.dataclass(frozen=True)
class Place(Resizing):
    """Resize by a mode of `BridgeTowerImageConverter`, and cut the square.

    Args:
        mode: str, `"crop"`, `"squash"` or `"hf"`.
        resizer: str, as `transform` takes it.
    """

    WRITTEN_AS = "Place(resizer={resizer}, mode={mode})"

    mode: str

    def __call__(self, image, side, rng, texts):
        return place(image, side, self.mode, resizer=self.resizer)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Resizing):
    """Cut a random rectangle, and squash it to the square.

    Args:
        scale: `(low, high)`, share of the picture's area.
        ratio: `(low, high)`, width over height, drawn on a logarithmic scale.
        resizer: str, as `transform` takes it.
    """

    WRITTEN_AS = (
        "RandomResizedCrop(resizer={resizer}, scale={scale}, ratio={ratio})"
    )

    scale: tuple = (0.5, 1.0)
    ratio: tuple = (3 / 4, 4 / 3)

    def __call__(self, image, side, rng, texts):
        left, top, width, height = self.box(image.size, rng)
        # Cut first: with a box, Pillow's resize would look beyond its edges.
        image = image.crop((left, top, left + width, top + height))
        return RESIZERS[self.resizer](image, (side, side))

    def box(self, size, rng):
        """Draw a rectangle.

        Args:
            size: `(width, height)` of the picture.
            rng: `np.random.Generator`.

        Returns:
            `(left, top, width, height)`, ints: of ten draws the first that
            fits, or the largest central one within the limits of `ratio`.
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


# When a picture may be mirrored, given its texts.
FLIPS = {
    "unless_sided": lambda texts: not is_sided(texts),
    "always": lambda texts: True,
}


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirror left and right, half of the time.

    Args:
        when: str, `"unless_sided"` leaves pictures alone whose text speaks of
            left or right; `"always"` mirrors those too, as the authors did.
    """

    WRITTEN_AS = "Flip(when={when})"

    when: str = "unless_sided"

    def __post_init__(self):
        check_choice("when", self.when, tuple(FLIPS))

    def __call__(self, image, side, rng, texts):
        # Drawn in any case, so that a text changes nothing else.
        drawn = rng.random() < 0.5
        if drawn and FLIPS[self.when](texts):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


@dataclasses.dataclass(frozen=True)
class Transform:
    """One way from a picture to a square one.

    Args:
        image_size: int, side of the output in pixels.
        steps: tuple of steps, each called with the `PIL.Image`, the side, a
            generator and the texts.
        mean, std: three numbers each, how the model that is trained wants its
            values, from 0 to 1, normalised; its image converter does that, and
            a stream refuses a converter with others.

    Call arguments:
        image: whatever `load_image` reads.
        seed: what `np.random.default_rng` takes: ints.
        texts: sequence of str, the texts that go with the picture.
        name: str, what errors call the picture.

    Returns:
        uint8 array `(image_size, image_size, 3)`, a function of these alone.

    Raises:
        ValueError: the picture cannot be read, or the steps leave another
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
        """As a call, of an RGB `PIL.Image`."""
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

# Steps, and values of `Transform`, by the authors' names. Where theirs mirrors
# pictures whatever the text says, that is the row that ends in "_official".
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
    """A transform by its name.

    Args:
        name: str, a key of `TRANSFORMS`. For evaluation: `"clip"` (centre
            crop), `"blip"` (squash), `"hf"` (as transformers). For training:
            a name with `"randaug"`; evaluate with the first word of the name.
        image_size: int, side of the pictures in pixels.
        resizer: str, `"pillow"`, or `"torch"`: three times as fast, the same
            but for a level in one value of a thousand. Needs PyTorch, with
            any backend.

    Returns:
        `Transform`.

    Raises:
        ValueError: no such name, or a size that is not a positive integer.
        ImportError: PyTorch is asked for and not installed.

    Example:

    ```python
    transform("blip_randaug_wohf", image_size=576)
    ```
    """
    check_choice("name", name, tuple(TRANSFORMS))
    if type(image_size) is not int or image_size < 1:
        raise ValueError(
            "`image_size` must be a positive integer, one side in pixels. "
            f"Received: image_size={image_size!r}"
        )
    steps, values = TRANSFORMS[name]
    steps = tuple(
        dataclasses.replace(step, resizer=resizer)
        if isinstance(step, Resizing)
        else step
        for step in steps
    )
    return Transform(image_size, steps, **values)
