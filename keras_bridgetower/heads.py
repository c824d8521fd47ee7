"""Heads: from the backbone's outputs to logits."""

import keras
from keras import ops

from keras_bridgetower.attention import initializer


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ClassifierHead(keras.layers.Layer):
    """Linear, LayerNorm, GELU, Linear: the head of VQA and entailment.

    Args:
        num_classes: int, number of logits.
        hidden_dim: int, width of the hidden layer.
        **kwargs: `name`, `dtype`.

    Call arguments:
        x: float tensor `(batch, width)`, the pooled representation.

    Returns:
        float32 tensor `(batch, num_classes)`: logits, whatever the dtype
        policy.

    Example:

    ```python
    head = ClassifierHead(num_classes=13, hidden_dim=64)
    head(np.ones((2, 32))).shape  # (2, 13)
    ```

    Source: BridgeTower's `vqa_classifier` and `snli_classifier`.
    """

    def __init__(self, num_classes, hidden_dim, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.hidden_dim = hidden_dim
        self.hidden_dense = self._dense(hidden_dim, "hidden_dense")
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=1e-5, dtype=self.dtype_policy, name="layer_norm"
        )
        self.output_dense = self._dense(num_classes, "output_dense")

    def build(self, x_shape):
        self.hidden_dense.build(x_shape)
        hidden_shape = (*x_shape[:-1], self.hidden_dim)
        self.layer_norm.build(hidden_shape)
        self.output_dense.build(hidden_shape)

    def call(self, x):
        x = ops.gelu(self.layer_norm(self.hidden_dense(x)), approximate=False)
        return ops.cast(self.output_dense(x), "float32")

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=initializer(),
            dtype=self.dtype_policy,
            name=name,
        )
