"""Row 0 of a tower's states: the token that poolers and embeddings read.

CLIP, ViT and BERT learn a class token or a start token. Other encoders have
none, or one without information: the start token of a causal text encoder is
the same for every text. There a summary takes its place.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.models.attention import initializer


class Summary(keras.layers.Layer):
    """Abstract: puts a summary of a state at row 0.

    Args:
        replaces: int, the rows at the start that it replaces: 1 if row 0 is a
            class token or a start token, else 0.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        x: float tensor `(batch, tokens, width)`.
        padding_mask: int tensor `(batch, tokens)`, that of a text; None
            for an image.

    Returns:
        Float tensor `(batch, 1 - replaces + tokens, width)`.
    """

    def __init__(self, replaces=0, **kwargs):
        super().__init__(**kwargs)
        self.replaces = replaces

    def build(self, x_shape, padding_mask_shape=None):
        """Create the weights of `summarize`, if it has some."""

    def call(self, x, padding_mask=None):
        row = ops.cast(self.summarize(x, padding_mask), x.dtype)
        if not self.replaces:
            return ops.concatenate([row, x], axis=1)
        # Without a slice, which would forbid some lengths in an exported file.
        position = ops.cumsum(ops.ones_like(x[..., :1]), axis=1)
        return ops.where(position == 1, row, x)

    def summarize(self, x, mask):
        """Return the row `(batch, 1, width)`."""
        raise NotImplementedError

    def compute_output_shape(self, x_shape, padding_mask_shape=None):
        batch, tokens, width = x_shape
        if tokens is not None:
            tokens += 1 - self.replaces
        return batch, tokens, width


def _register(cls):
    return keras.saving.register_keras_serializable("keras_bridgetower")(cls)


@_register
class MeanSummary(Summary):
    """The mean of all tokens that are not padding."""

    def summarize(self, x, mask):
        if mask is None:
            return ops.mean(x, axis=1, keepdims=True)
        weights = ops.expand_dims(ops.cast(mask, x.dtype), -1)
        total = ops.sum(x * weights, axis=1, keepdims=True)
        return total / ops.sum(weights, axis=1, keepdims=True)


@_register
class EndSummary(Summary):
    """The last token that is not padding: the end token of a text."""

    def summarize(self, x, mask):
        mask = ops.cast(mask, "int32")
        last = ops.cumsum(mask, axis=1) == ops.sum(mask, axis=1, keepdims=True)
        only = ops.where(last & (mask == 1), 1.0, 0.0)[..., None]
        return ops.sum(x * ops.cast(only, x.dtype), axis=1, keepdims=True)


@_register
class LastSummary(Summary):
    """The last token, padding or not, of a text of fixed length."""

    def summarize(self, x, mask):
        return x[:, -1:]


@_register
class LearnedSummary(Summary):
    """A learned vector, the same for each image, initially random."""

    def build(self, x_shape, padding_mask_shape=None):
        self.token = self.add_weight(
            shape=(1, 1, x_shape[-1]), initializer=initializer(), name="token"
        )

    def summarize(self, x, mask):
        return ops.broadcast_to(
            ops.cast(self.token, x.dtype), (ops.shape(x)[0], 1, x.shape[-1])
        )


@_register
class AttentionPoolSummary(Summary):
    """The sum of all tokens, weighted by a learned query (one head)."""

    def build(self, x_shape, padding_mask_shape=None):
        self.query = self.add_weight(
            shape=(x_shape[-1], 1), initializer="zeros", name="query"
        )

    def summarize(self, x, mask):
        scores = ops.matmul(x, ops.cast(self.query, x.dtype))
        scores = scores / np.sqrt(x.shape[-1])
        weights = ops.softmax(scores, axis=1)
        return ops.sum(weights * x, axis=1, keepdims=True)


# Values of `positions`, for towers whose states are grids.
COLORS = "coordinates_and_colors"
POSITIONS = (None, "coordinates", COLORS)
# `class` and `start` are the encoder's own tokens.
IMAGE_SUMMARIES = {
    "class": None,
    "mean": MeanSummary,
    "attention_pool": AttentionPoolSummary,
    "learned": LearnedSummary,
}
TEXT_SUMMARIES = {
    "start": None,
    "mean": MeanSummary,
    "end": EndSummary,
    "last": LastSummary,
}
SUMMARIES = {"image": IMAGE_SUMMARIES, "text": TEXT_SUMMARIES}


@_register
class SameGrid(keras.layers.Layer):
    """Resize a grid of states to another one, by averages over areas.

    Args:
        size: tuple of int, height and width of the new grid.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        x: float tensor `(batch, height, width, channels)`.

    Returns:
        Float tensor `(batch, tokens, channels)`, row by row.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)

    def build(self, x_shape):
        # While a model is traced, `x.shape` may hold tensors.
        self.sides = tuple(x_shape[1:3])

    def call(self, x):
        if self.sides != self.size:
            rows, columns = (
                ops.cast(_areas(old, new), x.dtype)
                for old, new in zip(self.sides, self.size, strict=True)
            )
            # In one step PyTorch would fix the batch size of an exported file.
            x = ops.einsum("ah,nhwc->nawc", rows, x)
            x = ops.einsum("bw,nawc->nabc", columns, x)
        return ops.reshape(x, (-1, self.size[0] * self.size[1], x.shape[-1]))

    def compute_output_shape(self, x_shape):
        return x_shape[0], self.size[0] * self.size[1], x_shape[-1]


@_register
class Coordinates(keras.layers.Layer):
    """Append the position of each token of a grid, as ten channels.

    They are the coordinates from -1 to 1, and sines and cosines of one and two
    half waves over the image. The states of convolutions hardly say where they
    are; a projection behind this layer learns to read it.

    Args:
        size: tuple of int, height and width of the grid.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        x: float tensor `(batch, tokens, channels)`, row by row.

    Returns:
        Float tensor `(batch, tokens, channels + 10)`.

    Source: CoordConv (Liu et al., 2018).
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)
        # Centers of cells from -1 to 1.
        centers = ((np.arange(n) + 0.5) * (2 / n) - 1 for n in self.size)
        centers = np.stack(np.meshgrid(*centers, indexing="ij"), -1)
        centers = centers.reshape(-1, 2)
        angles = np.concatenate([np.pi / 2 * centers, np.pi * centers], -1)
        self.channels = np.concatenate(
            [centers, np.sin(angles), np.cos(angles)], -1
        )

    def call(self, x):
        channels = ops.cast(self.channels, x.dtype)
        shape = ops.shape(x)[0], *self.channels.shape
        return ops.concatenate([x, ops.broadcast_to(channels, shape)], axis=-1)

    def compute_output_shape(self, x_shape):
        return *x_shape[:-1], x_shape[-1] + self.channels.shape[-1]


def _areas(old, new):
    """Return the shares `(new, old)` of old cells in each new one."""
    edges = np.arange(new + 1) * (old / new)
    cells = np.arange(old)
    overlap = np.minimum(edges[1:, None], cells + 1)
    overlap = overlap - np.maximum(edges[:-1, None], cells)
    return np.maximum(overlap, 0) * (new / old)
