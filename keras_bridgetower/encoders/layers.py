"""Layers that wrap layers of encoders, to compute hidden states."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops


class _LayerWrapper(keras.layers.Layer):
    """Abstract: a layer around the layer `inner` of an encoder.

    Args:
        layer: a `keras.layers.Layer`.
        **kwargs: name of the wrapper.
    """

    # Name of the layer as an attribute and in a configuration.
    inner = None
    # Whether the layer is built when it is created.
    is_whole = True

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs | {"dtype": layer.dtype_policy})
        setattr(self, self.inner, layer)
        self.built = self.is_whole

    def get_config(self):
        layer = keras.layers.serialize(getattr(self, self.inner))
        return {**super().get_config(), self.inner: layer}

    @classmethod
    def from_config(cls, config):
        others = {k: v for k, v in config.items() if k != cls.inner}
        return cls(keras.layers.deserialize(config[cls.inner]), **others)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class TokenLookup(_LayerWrapper):
    """Look up rows of an embedding's table, with a dense gradient.

    On TensorFlow the gradient of a plain lookup is a list of slices, in which
    the row of a repeated token is repeated. Adaptive optimizers then square the
    parts instead of their sum, and clipping computes a wrong norm.
    `backend_ops.lookup` sums them first. This layer has no weights: the table
    remains a weight of the encoder.

    Args:
        embedding: a `keras.layers.Embedding`.
        **kwargs: name of the layer.

    Example:

    ```python
    embedding = keras.layers.Embedding(10, 4)
    TokenLookup(embedding)(np.array([[1, 1, 2]])).shape  # (1, 3, 4)
    ```
    """

    inner = "embedding"
    is_whole = False

    def build(self, ids_shape):
        if not self.embedding.built:
            self.embedding.build(ids_shape)

    def call(self, ids):
        if self.embedding.quantization_mode is not None:
            # The embedding scales the integers of a quantized table.
            return self.embedding(ids)
        table = ops.convert_to_tensor(self.embedding.embeddings)
        return backend_ops.lookup(table, ids)

    def compute_output_shape(self, ids_shape):
        return (*ids_shape, self.embedding.output_dim)


def token_embeddings(encoder, embedding):
    """Look up the tokens of a text encoder's input in its `embedding`."""
    lookup = TokenLookup(embedding, name="token_lookup")
    return lookup(encoder.input["token_ids"])


def run_blocks(x, blocks, norm=None, **arguments):
    """Return the outputs of blocks, the first of which reads `x`.

    Args:
        x: symbolic tensor `(batch, tokens, width)`.
        blocks: iterable of layers, lowest first.
        norm: the final norm, which is applied to every output, or None.
        **arguments: of each block's call.
    """
    states = []
    for block in blocks:
        x = block(x, **arguments)
        states.append(x if norm is None else norm(x))
    return states


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class FirstOutput(_LayerWrapper):
    """Call a block with several outputs and return the first one.

    DeiT's blocks return `(x, None)`. A functional model cannot call a layer
    again if the second call has more outputs than the first.
    """

    inner = "block"

    def call(self, x, training=None):
        return self.block(x, training=training)[0]

    def compute_output_shape(self, x_shape):
        return x_shape


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class AllPositions(TokenLookup):
    """Add a whole table of learned positions to texts of that length."""

    def call(self, x):
        return x + super().call(ops.arange(self.embedding.input_dim))

    def compute_output_shape(self, x_shape):
        return x_shape


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class Patches(_LayerWrapper):
    """Call the embedding of SigLIP, with the right number of patches.

    KerasHub's layer also counts a class token, which it does not have.
    """

    inner = "embedding"

    def call(self, images):
        return self.embedding(images)

    def compute_output_shape(self, images_shape):
        inner = self.embedding
        return images_shape[0], inner.num_positions, inner.hidden_dim


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class PartOfStage(_LayerWrapper):
    """Call a layer of a stage, since layers of all stages have the same names.

    Args:
        part: the layer, which is built.
        arguments: dict of arguments of its call.
        **kwargs: name of the layer.
    """

    inner = "part"

    def __init__(self, part, arguments=None, **kwargs):
        super().__init__(part, **kwargs)
        self.arguments = arguments or {}

    def call(self, x):
        return self.part(x, **self.arguments)

    def get_config(self):
        return {**super().get_config(), "arguments": self.arguments}
