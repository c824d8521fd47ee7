"""Pictures and texts as a user passes them to a verb, one or many."""

import os

import numpy as np
from keras import ops

from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.images import SIGNATURE
from keras_bridgetower.preprocessing.images import SINGLE
from keras_bridgetower.preprocessing.picture_arrays import as_array
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor


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


def as_pictures(images):
    """Pictures as a list.

    Args:
        images: one picture, or a list, tuple or array of pictures, in any
            form that `load_image` reads.

    Returns:
        `(pictures, single)`: a list, and whether it was one picture.

    Raises:
        ValueError: no picture.
    """
    pictures, single = pictures_of(images)
    return _some("images", pictures), single


def as_texts(texts):
    """Texts as a list.

    Args:
        texts: one string, or a list, tuple or array of strings.

    Returns:
        `(texts, single)`: a list, and whether it was one string.

    Raises:
        ValueError: no text.
    """
    if not isinstance(texts, (list, tuple)):
        texts = np.asarray(texts, object).tolist()
    if isinstance(texts, (str, bytes)):
        return [texts], True
    return _some("texts", list(texts)), False


def check_pairs(images, texts):
    """Refuse lists that do not pair, one picture or one text aside.

    Args:
        images, texts: what `as_pictures` and `as_texts` returned.
    """
    (pictures, one_image), (strings, one_text) = images, texts
    if len(pictures) != len(strings) and not (one_image or one_text):
        raise ValueError(
            "`images` and `texts` must be of the same number, or one of them "
            "single, not in a list. For all pictures with all texts use "
            f"`rank`. Received: {len(pictures)} images, {len(strings)} texts"
        )


def check_counts(**values):
    """Refuse numbers that are given and are no integers from 1."""
    for name, value in values.items():
        if value is not None:
            check_count(name, value)


def with_labels(y):
    """The labels of training, which must be there."""
    if y is None:
        raise ValueError(
            "`y` must hold image ids (batch,), or a dict of 'match' for "
            "labelled pairs. Received: y=None"
        )
    return y


def _some(name, items):
    if not items:
        raise ValueError(
            f"`{name}` must hold at least one. Received: {name}={items!r}"
        )
    return items
