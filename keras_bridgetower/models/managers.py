"""Managers: layers that weight all tapped states of a tower.

A bridge passes one state of a tower to one cross-modal layer. A manager reads
all tapped states, and each cross-modal layer of a modality has its own.
"""

import math

import keras
from keras import ops

from keras_bridgetower.models.attention import dense
from keras_bridgetower.models.attention import layer_norm
from keras_bridgetower.models.attention import watched


class ManagerLayer(keras.layers.Layer):
    """Abstract: a weighted sum of the tapped states, each after its own norm.

    `sum_i softmax_i(scores / temperature) * LN_i(states_i)`, the temperature
    learned. In training, normal noise of standard deviation `1/N` is added to
    the scores of each sample, token and channel. A subclass computes the
    scores, calls `mix`, and may add its own terms. To use your own manager,
    register the subclass with Keras and pass the class as `bridge`; the first
    cross-modal layer always has a `FirstManager`.

    Args:
        hidden_dim: int, width D.
        num_states: int, number N of states.
        epsilon: float, epsilon of the layer norms.

    Call arguments:
        states: list of N float tensors `(batch, tokens, D)`, the projected
            states of the modality, lowest first.
        own: float tensor `(batch, tokens, D)`, the modality's output of the
            cross-modal layer before; None in the first layer.
        other: float tensor `(batch, others, D)`, that of the other modality.

    Returns:
        Float tensor `(batch, tokens, D)`.

    Example:

    ```python
    @keras.saving.register_keras_serializable("mine")
    class Mean(kbt.ManagerLayer):
        def call(self, states, own, other, training=None):
            equal = keras.ops.zeros((1, self.num_states, 1, 1))
            return self.mix(states, equal, training)

    kbt.CrossModalEncoder(16, num_heads=2, num_layers=2, bridge=Mean)
    ```

    Source: ManagerTower (ACL 2023).
    """

    # True if outputs at tokens depend on those at padding.
    reads_padding = False

    def __init__(self, hidden_dim, num_states, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim, self.num_states = hidden_dim, num_states
        self.epsilon = epsilon
        self.norms = [self._norm(f"norm_{i}") for i in range(num_states)]
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, states_shape, own_shape=None, other_shape=None):
        self.temperature = self.add_weight(
            shape=(), initializer="ones", name="temperature"
        )
        for norm in self.norms:
            norm.build(states_shape[0])

    def compute_output_shape(self, states_shape, **other_shapes):
        return states_shape[0]

    def mix(self, states, scores, training):
        """Compute the weighted sum.

        Args:
            states: list of float tensors `(batch, tokens, D)`.
            scores: float tensor that broadcasts to `(batch, N, tokens, D)`.
            training: bool, whether to add noise.
        """
        if training:
            batch, tokens, width = ops.shape(states[0])
            scores = scores + keras.random.normal(
                (batch, self.num_states, tokens, width),
                stddev=1 / self.num_states,
                dtype=self.compute_dtype,
                seed=self.seed_generator,
            )
        weights = ops.softmax(scores / self.temperature, axis=1)
        normalized = [
            norm(x) for norm, x in zip(self.norms, states, strict=True)
        ]
        return sum(weights[:, i] * x for i, x in enumerate(normalized))

    def _norm(self, name):
        return layer_norm(self, self.epsilon, name)


@keras.saving.register_keras_serializable("keras_bridgetower")
class FirstManager(ManagerLayer):
    """The manager of the first layer: scores are learned vectors.

    `sum_i softmax_i(S / temperature) * LN_i(states_i)` with S `(N, D)`,
    initially uniform. Weights are the same for all samples and tokens.

    Example:

    ```python
    states = [np.ones((1, 4, 8)), np.zeros((1, 4, 8))]
    FirstManager(hidden_dim=8, num_states=2)(states).shape  # (1, 4, 8)
    ```
    """

    def build(self, states_shape, own_shape=None, other_shape=None):
        super().build(states_shape)
        self.scores = self.add_weight(
            shape=(self.num_states, self.hidden_dim),
            initializer=keras.initializers.Constant(1 / self.num_states),
            name="scores",
        )

    def call(self, states, own=None, other=None, training=None):
        return self.mix(states, self.scores[None, :, None], training)


@keras.saving.register_keras_serializable("keras_bridgetower")
class StaticManager(FirstManager):
    """A static manager: learned scores, and a learned share of `own`.

    `sum_i softmax_i(S / temperature) * LN_i(states_i) + s * LN(own)`, s a
    learned vector, initially ones. The other modality is not read.

    Example:

    ```python
    states, own = [np.ones((1, 4, 8))] * 2, np.ones((1, 4, 8))
    StaticManager(hidden_dim=8, num_states=2)(states, own).shape  # (1, 4, 8)
    ```

    Source: `SAUE` of ManagerTower's code.
    """

    def __init__(self, hidden_dim, num_states, epsilon=1e-5, **kwargs):
        super().__init__(hidden_dim, num_states, epsilon, **kwargs)
        self.own_norm = self._norm("own_norm")

    def build(self, states_shape, own_shape=None, other_shape=None):
        super().build(states_shape)
        self.own_norm.build(own_shape)
        self.own_score = _own_score(self)

    def call(self, states, own, other=None, training=None):
        mixed = super().call(states, training=training)
        return mixed + self.own_score * self.own_norm(own)


@keras.saving.register_keras_serializable("keras_bridgetower")
class AdaptiveManager(ManagerLayer):
    """An adaptive manager: the scores depend on both modalities.

    With `c = LN(own)` and `q = LN(other)`, each token attends to the other
    modality by one head, `A = softmax((W_q c)(W_k q)^T / sqrt(D))`, and
    `g = W [A q; c]` has one score for each state. The result is
    `sum_i softmax_i(g / temperature) * LN_i(states_i) + s * c`, s a learned
    vector, initially ones.

    As in the authors' code, the attention has no padding mask: outputs depend
    on the padding of texts, and so on the length to which they are padded.

    Example:

    ```python
    states, own = [np.ones((1, 4, 8))] * 2, np.ones((1, 4, 8))
    manager = AdaptiveManager(hidden_dim=8, num_states=2)
    manager(states, own, np.ones((1, 9, 8))).shape  # (1, 4, 8)
    ```

    Source: `AAUE` of ManagerTower's code.
    """

    reads_padding = True

    def __init__(self, hidden_dim, num_states, epsilon=1e-5, **kwargs):
        super().__init__(hidden_dim, num_states, epsilon, **kwargs)
        self.own_norm = self._norm("own_norm")
        self.other_norm = self._norm("other_norm")
        self.query = dense(self, self.hidden_dim, "query")
        self.key = dense(self, self.hidden_dim, "key")
        self.controller = dense(self, self.num_states, "controller")

    def build(self, states_shape, own_shape=None, other_shape=None):
        super().build(states_shape)
        for layer in (self.own_norm, self.query):
            layer.build(own_shape)
        for layer in (self.other_norm, self.key):
            layer.build(other_shape)
        self.controller.build((*own_shape[:-1], 2 * self.hidden_dim))
        self.own_score = _own_score(self)

    def call(self, states, own, other, training=None):
        own, other = self.own_norm(own), self.other_norm(other)
        keys = ops.transpose(self.key(other), (0, 2, 1))
        logits = ops.matmul(self.query(own), keys) / math.sqrt(self.hidden_dim)
        # A head axis, as in all maps of attention.
        weights = watched(self.name, ops.softmax(logits)[:, None])[:, 0]
        attended = ops.matmul(weights, other)
        scores = self.controller(ops.concatenate([attended, own], axis=-1))
        scores = ops.transpose(scores, (0, 2, 1))[..., None]
        return self.mix(states, scores, training) + self.own_score * own


def _own_score(layer):
    """Create the learned share of the previous output."""
    return layer.add_weight(
        shape=(layer.hidden_dim,), initializer="ones", name="own_score"
    )


MANAGERS = {
    "static_manager": StaticManager,
    "adaptive_manager": AdaptiveManager,
}
