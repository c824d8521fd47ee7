"""Pictures as a user has them, one or many, in every form."""

import collections.abc
import io
import os

import numpy as np
from keras import ops

from keras_bridgetower.preprocessing.images import SIGNATURE
from keras_bridgetower.preprocessing.images import SINGLE
from keras_bridgetower.preprocessing.images import check_signature
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.picture_arrays import as_array
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor
from keras_bridgetower.preprocessing.tf_graph import shape_of


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
    elif ops.is_tensor(images):
        images = ops.convert_to_numpy(images)
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
    images = _column(x["images"])
    if not isinstance(images, (list, tuple)):
        return x
    pictures = [*_flat(images)]
    arrays = not any(isinstance(picture, SINGLE) for picture in pictures)
    if arrays and len({shape_of(picture) for picture in pictures}) == 1:
        # A tuple would be taken for several inputs.
        return {**x, "images": _nested(images, _pixels)}
    return {**x, "images": _nested(images, _stored)}


def _column(images):
    """Pictures as a list, where a table or an array holds them as objects."""
    if isinstance(images, (str, bytes, list, tuple)):
        return images
    # The columns of `datasets` read each row when it is asked for.
    if isinstance(images, collections.abc.Sequence):
        return list(images)
    tensor = ops.is_tensor(images) or is_string_tensor(images)
    if not tensor and hasattr(images, "__array__"):
        array = as_array(images, "images")
        return array.tolist() if array.dtype.kind in "OS" else array
    return images


def _several(images):
    """Whether these are pictures and not one: pairs may come as arrays."""
    return isinstance(images, (list, tuple)) or len(shape_of(images)) == 4


def _flat(images):
    for image in images:
        single = isinstance(image, SINGLE) or not _several(image)
        yield from (image,) if single else _flat(image)


def _nested(images, function, name="images"):
    """The lists of pictures anew, with what a function makes of each."""
    if isinstance(images, SINGLE) or not _several(images):
        return function(images, name)
    named = ((image, f"{name}[{i}]") for i, image in enumerate(images))
    return [_nested(image, function, name) for image, name in named]


def _pixels(image, name):
    # TensorFlow makes arrays of no other library's tensors.
    return ops.convert_to_numpy(image) if ops.is_tensor(image) else image


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
