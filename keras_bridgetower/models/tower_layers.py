"""Layers that the towers' rules put around layers of an encoder."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops


class _Around(keras.layers.Layer):
    """Abstract: runs a layer of an encoder in another way.

    Args:
        layer: a `keras.layers.Layer`.
        **kwargs: name of this one.
    """

    # Name of the argument that takes the layer.
    inner = None

    def __init__(self, layer, **kwargs):
        kwargs["dtype"] = layer.dtype_policy
        super().__init__(**kwargs)

    def get_config(self):
        layer = keras.layers.serialize(getattr(self, self.inner))
        return {**super().get_config(), self.inner: layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.layers.deserialize(config[cls.inner])
        return cls(**{**config, cls.inner: layer})


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class TokenLookup(_Around):
    """Looks rows up in an embedding's table, with a dense gradient.

    On TensorFlow the gradient of a plain lookup reaches the optimizer as
    slices with repeated rows un-summed: adaptive optimizers square the parts
    one by one and norm clipping sees the wrong norm. `engine.lookup` cures
    that whatever optimizer is compiled. The layer owns no weight: the table
    stays the encoder's.

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

    def __init__(self, embedding, **kwargs):
        super().__init__(embedding, **kwargs)
        self.embedding = embedding

    def build(self, ids_shape):
        if not self.embedding.built:
            self.embedding.build(ids_shape)

    def call(self, ids):
        if self.embedding.quantization_mode is not None:
            # The table holds integers, which only the layer itself scales.
            return self.embedding(ids)
        table = ops.convert_to_tensor(self.embedding.embeddings)
        return backend_ops.lookup(table, ids)

    def compute_output_shape(self, ids_shape):
        return (*ids_shape, self.embedding.output_dim)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class FirstOutput(_Around):
    """Runs a block of several outputs and passes the first one on.

    A functional model refuses a layer's second call if that call has more
    outputs than the first one; DeiT's blocks return `(x, None)`.
    """

    inner = "block"

    def __init__(self, block, **kwargs):
        super().__init__(block, **kwargs)
        self.block = block
        self.built = True

    def call(self, x, training=None):
        return self.block(x, training=training)[0]

    def compute_output_shape(self, x_shape):
        return x_shape
