"""Other image sizes: resizes the learned image positions of a model."""

import functools
import math

import keras
import numpy as np

from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend.keras_private import variables
from keras_bridgetower.checks import is_integer
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.models.adapters import merged_weights


def resize_positions(table, count, antialias=False):
    """Resize a table of learned positions to another grid.

    Interpolation is bicubic with a = -0.75, half-pixel centers and no
    anti-aliasing, as in the authors' code. It uses NumPy, because TensorFlow
    and JAX have a = -0.5. With anti-aliasing PyTorch has -0.5, too. The
    positions of prefix tokens (class, distillation) stay the same.

    Args:
        table: float array `(..., positions, width)`, prefix tokens first.
        count: int, new number of positions, prefix tokens included, which
            leave a square number.
        antialias: bool, whether to smooth a table that becomes smaller, as
            DINOv2 with registers does.

    Returns:
        Float array `(..., count, width)`.

    Example:

    ```python
    resize_positions(np.ones((1 + 14 * 14, 8)), 1 + 18 * 18).shape  # (325, 8)
    ```

    Source: BridgeTower's and METER's `adapt_position_encoding`.
    """
    side = math.isqrt(table.shape[-2])
    prefix = table.shape[-2] - side**2
    new_side = math.isqrt(count - prefix)
    grid = table[..., prefix:, :].astype("float64")
    grid = grid.reshape(*grid.shape[:-2], side, side, grid.shape[-1])
    weights = (_smooth_bicubic if antialias else _bicubic)(side, new_side)
    grid = np.einsum("ai,bj,...ijd->...abd", weights, weights, grid)
    grid = grid.reshape(*grid.shape[:-3], new_side**2, grid.shape[-1])
    kept = table[..., :prefix, :]
    return np.concatenate([kept, grid.astype(table.dtype)], axis=-2)


def _cubic(distances, a):
    """Return the values of Keys' cubic kernel."""
    d = np.abs(distances)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _smooth_bicubic(size, new_size):
    """Return the matrix `(new_size, size)` with anti-aliasing, edges cut."""
    scale = size / new_size
    source = (np.arange(new_size) + 0.5) * scale - 0.5
    distances = source[:, None] - np.arange(size)
    matrix = _cubic(distances / max(scale, 1), a=-0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _bicubic(size, new_size):
    """Return the interpolation matrix `(new_size, size)`, edges clamped."""
    source = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    base = np.floor(source).astype(int)
    matrix = np.zeros((new_size, size))
    for tap in range(-1, 3):
        weight = _cubic(source - (base + tap), a=-0.75)
        index = np.clip(base + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(new_size), index), weight)
    return matrix


def with_positions_for(backbone, side, image_tokens):
    """Return a new backbone for another image size, with resized positions.

    Args:
        backbone: a `BridgeTowerBackbone`.
        side: int, side of the new images in pixels.
        image_tokens: int or None, as of the new backbone.

    Returns:
        A new backbone of the same class with the same weights.

    Raises:
        ValueError: the encoder cannot have images of this side, or the
            backbone is quantized.
    """
    layer_records.check_not_quantized(backbone, "Another image size")
    check_side(
        "side", side, backbone.image_encoder, ", the `image_size` of a preset,"
    )
    config = backbone.get_config() | {"image_tokens": image_tokens}
    entry = get_entry(backbone.image_encoder)
    shape = (int(side), int(side), 3)
    config["image_encoder"]["config"].update(entry.sized(shape))
    resized = variables.without_initialization(
        functools.partial(type(backbone).from_config, config)
    )
    smooth = entry.antialias(backbone.image_encoder)
    return copy_resized(backbone, resized, smooth)


def check_side(name, side, encoder, alias=""):
    """Raise if an image encoder cannot have images of a side in pixels."""
    step = get_entry(encoder).side_step(encoder)
    if not is_integer(side) or side < step or side % step:
        raise ValueError(
            f"`{name}`{alias} must be one integer, a multiple of {step} for "
            f"this encoder. Received: {name}={side!r}"
        )


def copy_resized(model, resized, antialias=False):
    """Copy the weights of a model to one for images of another size.

    Args:
        model: the model with the weights.
        resized: a model of the same architecture; only the number of image
            positions may differ.
        antialias: bool, as in `resize_positions`.

    Returns:
        `resized`.
    """
    pairs = zip(resized.weights, merged_weights(model), strict=True)
    for new, (path, old) in pairs:
        shape, old_shape = tuple(new.shape), tuple(old.shape)
        same_rank = len(shape) == len(old_shape) >= 2
        if shape == old_shape:
            # On JAX both would share an array, which a step of one deletes.
            new.assign(keras.ops.copy(old))
        elif same_rank and (*old_shape[:-2], shape[-2], old_shape[-1]) == shape:
            table = keras.ops.convert_to_numpy(old)
            new.assign(resize_positions(table, shape[-2], antialias))
        # `Tower` sets the position ids of CLIP.
        elif not str(new.dtype).startswith("int"):
            raise ValueError(
                "Another image size must change only tables of positions. "
                f"Received: {path} of {old_shape}, which would be of {shape}"
            )
    return resized
