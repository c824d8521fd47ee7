"""Pictures as a user has them, one or many, in every form."""

import io
import os

import keras
import numpy as np

from keras_bridgetower.preprocessing.graph import is_string_tensor
from keras_bridgetower.preprocessing.graph import shape_of
from keras_bridgetower.preprocessing.images import SIGNATURE
from keras_bridgetower.preprocessing.images import SINGLE
from keras_bridgetower.preprocessing.images import check_signature
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.picture_arrays import as_array


def pictures_of(images):
    """The pictures that a caller gave, one or many.

    Args:
        images: one picture, or a list, tuple or array of pictures, as
            `BridgeTowerImageConverter` takes them.

    Returns:
        `(pictures, single)`: list of pictures, and whether only one came,
        not in a list.
    """
    if isinstance(images, SINGLE):
        return [images], True
    if isinstance(images, (list, tuple)):
        return list(images), False
    if is_string_tensor(images):
        images = pictures_in(images.numpy())
    # Tensors of the backend may live on a GPU.
    elif keras.ops.is_tensor(images):
        images = keras.ops.convert_to_numpy(images)
    array = as_array(images, "images")
    # Strings and objects are whole pictures, numbers are pixels.
    own_axes = 0 if array.dtype.kind in "OSUT" else 3
    if array.ndim <= own_axes:
        return [array.item() if own_axes == 0 else array], True
    return list(array), False


def pictures_in(strings):
    """What a string tensor holds: bytes of pictures as bytes, paths as `str`.

    TensorFlow has one type for both.

    Args:
        strings: array of bytes or strings.

    Returns:
        Array of objects, of the same shape.
    """
    strings = np.asarray(strings, object)
    found = np.empty(strings.shape, object)
    for index, value in np.ndenumerate(strings):
        picture = SIGNATURE.match(value)
        found[index] = value if picture else os.fsdecode(value)
    return found


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
