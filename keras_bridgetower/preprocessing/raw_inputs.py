"""Pictures as a user has them, before they become a dataset."""

import io
import os

import numpy as np

from keras_bridgetower.preprocessing.graph import shape_of
from keras_bridgetower.preprocessing.images import SINGLE
from keras_bridgetower.preprocessing.images import check_signature
from keras_bridgetower.preprocessing.images import open_image


def sliceable(x):
    """Raw inputs whose pictures TensorFlow can divide into rows.

    It takes arrays of one shape and strings, and knows no difference between
    bytes and paths. So bytes that are no picture are refused here, and
    whatever else it does not take is stored as an image file in memory,
    without loss.

    Args:
        x: whatever `fit`, `evaluate` or `predict` take.

    Returns:
        `x`; of a dict with lists of `"images"` a copy with lists of strings,
        bytes or arrays of one shape.

    Raises:
        ValueError: a picture that cannot be read.

    Example:

    ```python
    image = PIL.Image.new("RGB", (8, 8))
    sliceable({"images": [image, "photo.png"], "text": ["a?", "b?"]})
    ```
    """
    if not isinstance(x, dict) or "images" not in x:
        return x
    images = x["images"]
    if isinstance(images, np.ndarray) and images.dtype.kind in "OS":
        images = images.tolist()
    if not isinstance(images, (list, tuple)):
        return x
    pictures = [*_flat(images)]
    arrays = not any(isinstance(picture, SINGLE) for picture in pictures)
    if arrays and len({shape_of(picture) for picture in pictures}) == 1:
        # A tuple would be taken for several inputs.
        return {**x, "images": _nested(images, lambda picture, _: picture)}
    return {**x, "images": _nested(images, _stored)}


def _flat(images):
    for image in images:
        several = isinstance(image, (list, tuple))
        yield from _flat(image) if several else (image,)


def _nested(images, function, name="images"):
    """The lists of pictures anew, with what a function makes of each."""
    if not isinstance(images, (list, tuple)):
        return function(images, name)
    named = ((image, f"{name}[{i}]") for i, image in enumerate(images))
    return [_nested(image, function, name) for image, name in named]


def _stored(image, name):
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        check_signature(bytes(image), name)
        return bytes(image)
    file = io.BytesIO()
    # The format that costs no compression.
    open_image(image, name).save(file, "PPM")
    return file.getvalue()
