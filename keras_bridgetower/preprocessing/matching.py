"""Pictures and texts that match, or do not, and how they are told apart."""

import zlib

import numpy as np

from keras_bridgetower.preprocessing.graph import apply_numpy
from keras_bridgetower.preprocessing.graph import shape_of


def as_image_ids(ids):
    """Image ids as int32, the same in every batch and on every machine.

    Integers that fit stay as they are; larger ones and strings become the
    CRC-32 of their text, so two of a million different names are equal by
    chance about once in four thousand pairs of names per million.

    Args:
        ids: ints or strings `(batch,)`: a list, an array, or a tensor in a
            graph.

    Returns:
        int32 array `(batch,)`; in a graph a tensor.

    Raises:
        ValueError: ids of another type, or not one axis.

    Example:

    ```python
    as_image_ids(["a.jpg", "b.jpg", "a.jpg"])  # First and last are equal.
    ```
    """
    return apply_numpy(_image_ids, [ids], ("int32", shape_of(ids)))


def _image_ids(ids):
    array = np.asarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iuUSO":
        raise _bad_ids(f"shape {array.shape} and dtype {array.dtype}")
    return np.array([_image_id(value) for value in array.tolist()], "int32")


def _image_id(value):
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return value
    if not isinstance(value, (int, str, bytes)):
        raise _bad_ids(f"the value {value!r:.100}")
    text = value if isinstance(value, bytes) else str(value).encode()
    # CRC-32 is unsigned, int32 is not.
    return zlib.crc32(text) - 2**31


def _bad_ids(received):
    return ValueError(
        "Image ids must be integers or strings (batch,), equal for pictures "
        f"that fit the same texts. Received: ids of {received}"
    )
