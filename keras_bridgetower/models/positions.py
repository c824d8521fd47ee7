"""Resizing of learned image positions, for images of another size."""

import functools
import math

import keras
import numpy as np

from keras_bridgetower.backend import quantization
from keras_bridgetower.backend import uninitialized
from keras_bridgetower.checks import is_integer
from keras_bridgetower.models.adapters import merged_weights


def resize_positions(table, count):
    """Resize a table of learned positions to another grid.

    The grid is resized by bicubic interpolation with a = -0.75, half-pixel
    centres and no anti-aliasing, as the authors did. It is done in NumPy,
    because TensorFlow and JAX use a = -0.5. The positions of prefix tokens
    (class, distillation) stay the same.

    Args:
        table: float array `(..., positions, width)`, prefix tokens first.
        count: int, number of positions wanted, prefix tokens included.

    Returns:
        Float array `(..., count, width)`.

    Raises:
        ValueError: `count` is not a square grid plus the same prefix.

    Example:

    ```python
    resize_positions(np.ones((1 + 14 * 14, 8)), 1 + 18 * 18).shape  # (325, 8)
    ```

    Source: BridgeTower's and METER's `adapt_position_encoding`.
    """
    side = math.isqrt(table.shape[-2])
    prefix = table.shape[-2] - side**2
    new_side = math.isqrt(max(count - prefix, 0))
    if new_side < 1 or new_side**2 + prefix != count:
        raise ValueError(
            f"`count` must be a square number plus {prefix} prefix tokens. "
            f"Received: count={count}"
        )
    grid = table[..., prefix:, :].astype("float64")
    grid = grid.reshape(*grid.shape[:-2], side, side, grid.shape[-1])
    weights = _bicubic(side, new_side)
    grid = np.einsum("ai,bj,...ijd->...abd", weights, weights, grid)
    grid = grid.reshape(*grid.shape[:-3], new_side**2, grid.shape[-1])
    kept = table[..., :prefix, :]
    return np.concatenate([kept, grid.astype(table.dtype)], axis=-2)


def _bicubic(size, new_size, a=-0.75):
    """Interpolation matrix `(new_size, size)`, with clamped edges."""
    source = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    base = np.floor(source).astype(int)
    matrix = np.zeros((new_size, size))
    for tap in range(-1, 3):
        d = np.abs(source - (base + tap))
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * (d**3 - 5 * d**2 + 8 * d - 4)
        weight = np.where(d <= 1, near, np.where(d < 2, far, 0))
        index = np.clip(base + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(new_size), index), weight)
    return matrix


def with_positions_for(backbone, side, assign=keras.Variable.assign):
    """A new backbone for images of another size, with resized positions.

    Args:
        backbone: a backbone that can be made from its configuration.
        side: int, side of the new images in pixels.
        assign: callable of a new variable and the old one of the same shape,
            such as `uninitialized.move` if the old backbone is not needed
            any more.

    Returns:
        A new backbone of the same class with the same weights.

    Raises:
        ValueError: the side is not a multiple of the patch size, or the
            backbone is quantized.
    """
    quantization.check_not_quantized(backbone, "Another image size")
    patch = patch_size_of(backbone.image_encoder)
    if not is_integer(side) or side < patch or side % patch:
        raise ValueError(
            "`side`, the `image_size` of a preset, must be one integer, the "
            "side of square pictures in pixels: a positive multiple of the "
            f"patch size {patch}. Received: side={side!r}"
        )
    config = backbone.get_config()
    config["image_encoder"]["config"]["image_shape"] = (int(side),) * 2 + (3,)
    resized = uninitialized.without_initialization(
        functools.partial(type(backbone).from_config, config)
    )
    return copy_resized(backbone, resized, assign)


def _is_table(new, old):
    """Whether shapes of a weight differ in the number of positions alone."""
    new, old = tuple(new), tuple(old)
    alike = len(new) == len(old) >= 2
    return alike and (*new[:-2], new[-1]) == (*old[:-2], old[-1])


def patch_size_of(encoder):
    """int, side of an image encoder's square patches in pixels."""
    size = encoder.patch_size
    return size if isinstance(size, int) else size[0]


def copy_resized(model, resized, assign=keras.Variable.assign):
    """Copy the weights of a model to one for images of another size.

    Args:
        model: the model with the weights.
        resized: a model of the same architecture; only the number of its
            image positions may differ.
        assign: callable, as in `with_positions_for`.

    Returns:
        `resized`.
    """
    pairs = zip(resized.weights, merged_weights(model), strict=True)
    for new, (path, old) in pairs:
        if new.shape == old.shape:
            assign(new, old)
        elif _is_table(new.shape, old.shape):
            table = keras.ops.convert_to_numpy(old)
            new.assign(resize_positions(table, new.shape[-2]))
        # The rule of CLIP's encoder has set its position ids already.
        elif not str(new.dtype).startswith("int"):
            raise ValueError(
                "Another image size must change nothing but tables of "
                "positions, (..., positions, width). Received: the weight "
                f"{path} of shape {tuple(old.shape)}, which would be of "
                f"{tuple(new.shape)}"
            )
    return resized
