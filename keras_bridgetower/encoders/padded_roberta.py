"""RoBERTa whose padding has a position of its own, as in `transformers`."""

import keras
import keras_hub
import numpy as np
from keras import ops

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.bert import block_states
from keras_bridgetower.encoders.bert import normed
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import hidden_states
from keras_bridgetower.encoders.roberta import roberta
from keras_bridgetower.encoders.rules import Rule


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class PaddedPositions(keras.layers.Layer):
    """Add positions to tokens, and the padding's own position to padding.

    The token type is a weight of its own, too. As in `transformers`, padding
    learns neither its position nor its token.

    Call arguments:
        tokens, positions: float tensors `(batch, tokens, width)`.
        mask: int tensor `(batch, tokens)`, 0 at padding.

    Returns:
        Float tensor `(batch, tokens, width)`.

    Example:

    ```python
    x, mask = np.ones((1, 2, 8), "float32"), np.array([[1, 0]])
    PaddedPositions()(x, x, mask).shape  # (1, 2, 8)
    ```
    """

    def build(self, tokens_shape, positions_shape=None, mask_shape=None):
        def add(name, **kwargs):
            shape = (tokens_shape[-1],)
            return self.add_weight(
                shape=shape, initializer="zeros", name=name, **kwargs
            )

        self.padding = add("padding", trainable=False)
        self.token_type = add("token_type")

    def call(self, tokens, positions, mask):
        padding = ops.stop_gradient(tokens) + self.padding
        kept = ops.cast(mask, "bool")[..., None]
        x = ops.where(kept, tokens + positions, padding)
        return x + self.token_type

    def compute_output_shape(
        self, tokens_shape, positions_shape=None, mask_shape=None
    ):
        return tokens_shape


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class PaddedRobertaBackbone(keras_hub.models.RobertaBackbone):
    """RoBERTa whose padding has a position of its own.

    Its states at padding are those of `transformers`, for models that read
    padding: adaptive managers. At tokens they are those of RoBERTa. Only the
    states that `hidden_states` returns are computed so.

    Args:
        **kwargs: as `keras_hub.models.RobertaBackbone`.

    Example:

    ```python
    PaddedRobertaBackbone(
        vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16,
        intermediate_dim=32)
    ```
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.padded_positions = PaddedPositions(
            dtype=self.dtype_policy, name="padded_positions"
        )


@hidden_states.register(PaddedRobertaBackbone)
def states(encoder):
    tokens = token_embeddings(encoder, encoder.token_embedding)
    x = encoder.padded_positions(
        tokens,
        encoder.embeddings.position_embedding(tokens),
        encoder.input["padding_mask"],
    )
    x = normed(encoder, x)
    return block_states(encoder, x, encoder.transformer_layers)


def _load(tensors, shapes):
    rows, types = tensors
    padding = layouts.PADDING_ROWS - 1
    return [rows[layouts.PADDING_ROWS :], rows[padding], types[0]]


def _save(values):
    rows, padding, token_type = values
    unused = np.zeros_like(padding)
    return [np.concatenate([[unused, padding], rows]), token_type[None]]


# Of the two rows for padding, no token reads the first.
_POSITIONS = layouts.Layout(_load, _save, outside=1)


def padded_roberta(prefix, num_layers):
    """Return the rules of `PaddedRobertaBackbone`, as `roberta`."""
    positions, *others = roberta(prefix, num_layers)
    own = ("padded_positions/padding", "padded_positions/token_type")
    paths = (*positions.variables, *own)
    return [Rule(paths, positions.keys, _POSITIONS), *others]
