"""Layers that pair a replica's samples with samples of the global batch."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops

# In place of a number from 0 to 1: `DrawSamples` does not replace the sample.
ITSELF = -1.0


class GlobalBatchLayer(keras.layers.Layer):
    """Abstract: a layer that reads the samples of all replicas.

    It does not cast its inputs.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def gathered(self, x):
        """The samples of all replicas, and the indices of `x` among them."""
        every, first = backend_ops.all_gather(x)
        return every, first + ops.arange(ops.shape(x)[0], dtype="int32")


class NextSample(GlobalBatchLayer):
    """Replaces each sample by the next one of the global batch.

    The last sample is replaced by the first one.

    Call arguments:
        x: tensor `(batch, ...)`, the samples of this replica.

    Returns:
        Tensor of the shape of `x`.

    Example:

    ```python
    NextSample()(np.array([[1.0], [2.0], [3.0]]))  # [[2.0], [3.0], [1.0]]
    ```
    """

    def call(self, x):
        # Only the first sample of each replica is sent to another one.
        firsts, own = backend_ops.all_gather(x[:1])
        following = firsts[(own + 1) % ops.shape(firsts)[0]]
        # Cut after they are joined: exports would ask for a batch above 2 of
        # a piece without the first sample, and LiteRT cannot roll.
        return ops.concatenate([x, following[None]], axis=0)[1:]

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class TakeSamples(GlobalBatchLayer):
    """Takes samples of the global batch by their distance from each sample.

    Call arguments:
        x: tensor `(batch, ...)`, the samples of this replica.
        distances: int tensor `(batch, N)`. Distance 0 is the sample itself, 1
            the next one, -1 the one before. The first sample of the global
            batch follows the last one.

    Returns:
        Tensor `(batch * N, ...)`.

    Example:

    ```python
    TakeSamples()(np.array([[1.0], [2.0]]), np.array([[0, 1], [0, -1]]))
    # [[1.0], [2.0], [2.0], [1.0]]
    ```
    """

    def call(self, x, distances):
        every, own = self.gathered(x)
        indices = own[:, None] + ops.cast(distances, "int32")
        indices = ops.mod(indices, ops.shape(every)[0])
        return ops.take(every, ops.reshape(indices, (-1,)), axis=0)

    def compute_output_spec(self, x, distances):
        return keras.KerasTensor((None, *x.shape[1:]), dtype=x.dtype)


class DrawSamples(GlobalBatchLayer):
    """Draws for each sample a similar sample of the global batch.

    The probabilities are the softmax of the products with all samples.
    Samples with the same id have probability 0, unless all have the same id.

    Call arguments:
        own: float tensor `(batch, width)`, embeddings of this replica.
        others: float tensor `(batch, width)`, the embeddings of this replica
            that are drawn from, such as of the other modality.
        ids: int tensor `(batch,)`.
        places: float tensor `(batch,)`, uniform from 0 to 1. The sample is
            drawn at which the cumulative probability exceeds this number.
            A sample with `ITSELF` is not replaced.

    Returns:
        int32 tensor `(batch, 1)`, distances as `TakeSamples` takes them.

    Example:

    ```python
    own, others = 9.0 * np.eye(3), np.eye(3)[[0, 2, 1]]
    ids, places = np.arange(3), np.full(3, 0.25)
    DrawSamples()(own, others, ids, places)  # [[1], [1], [-1]]
    ```
    """

    def call(self, own, others, ids, places):
        every, own_indices = self.gathered(others)
        every_id, _ = backend_ops.all_gather(ids)
        scores = ops.cast(ops.matmul(own, ops.transpose(every)), "float32")
        same = ops.expand_dims(ids, 1) == ops.expand_dims(every_id, 0)
        # Not `softmax`, of which Keras warns where there is one sample alone.
        logs = ops.log_softmax(ops.where(same, -1e9, scores))
        probabilities = ops.exp(logs)
        sums = ops.cumsum(probabilities, axis=-1)
        itself = ops.cast(places, "float32") < 0.0
        # Rounding must give neither an index above the last one nor a sample
        # of probability 0.
        places = ops.minimum(ops.cast(places, "float32"), 1 - 1e-6)
        places = ops.expand_dims(places, 1) * sums[:, -1:]
        drawn = ops.sum(ops.cast(sums <= places, "int32"), axis=-1)
        return ops.where(itself, 0, drawn - own_indices)[:, None]

    def compute_output_spec(self, own, others, ids, places):
        return keras.KerasTensor((own.shape[0], 1), dtype="int32")
