"""Rows of the global batch, for pairs that reach beyond a replica's own."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops


class GlobalBatchLayer(keras.layers.Layer):
    """Abstract: a layer over the rows of all replicas, in their own dtype."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def gathered(self, x):
        """The rows of all replicas, and which of them those of `x` are."""
        every, first = backend_ops.all_gather(x)
        return every, first + ops.arange(ops.shape(x)[0], dtype="int32")


class NextSample(GlobalBatchLayer):
    """Moves every row of the global batch up by one, the first one to its end.

    Call arguments:
        x: tensor `(batch, ...)`, the rows of this replica.

    Returns:
        Tensor as `x`: of each row the one that follows in the global batch.

    Example:

    ```python
    NextSample()(np.array([[1.0], [2.0], [3.0]]))  # [[2.0], [3.0], [1.0]]
    ```
    """

    def call(self, x):
        # The first row of each replica is all that crosses over.
        firsts, own = backend_ops.all_gather(x[:1])
        following = ops.roll(firsts, -1, axis=0)[own]
        return ops.concatenate([x[1:], following[None]], axis=0)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class TakeSamples(GlobalBatchLayer):
    """Takes rows of the global batch, each named by how far away it stands.

    Call arguments:
        x: tensor `(batch, ...)`, the rows of this replica.
        distances: int tensor `(batch, N)`: of which row, counted from each
            row: 0 is itself, 1 the next one, -1 the one before. The first
            row of the global batch follows its last one.

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
        rows = own[:, None] + ops.cast(distances, "int32")
        rows = ops.mod(rows, ops.shape(every)[0])
        return ops.take(every, ops.reshape(rows, (-1,)), axis=0)

    def compute_output_spec(self, x, distances):
        return keras.KerasTensor((None, *x.shape[1:]), dtype=x.dtype)


class DrawSamples(GlobalBatchLayer):
    """Draws another row of the global batch for each row, by likeness.

    The chances are the softmax of the products with all rows. Those of a
    row's own id have none, unless there are no others.

    Call arguments:
        own: float tensor `(batch, width)`, the rows of this replica.
        others: float tensor `(batch, width)`, what they are compared with.
        ids: int tensor `(batch,)`.
        places: float tensor `(batch,)`, uniform from 0 to 1: where in the
            sum of the chances the row that is drawn stands.

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
        every, own_rows = self.gathered(others)
        every_id, _ = backend_ops.all_gather(ids)
        scores = ops.cast(ops.matmul(own, ops.transpose(every)), "float32")
        same = ops.expand_dims(ids, 1) == ops.expand_dims(every_id, 0)
        chances = ops.softmax(ops.where(same, -1e9, scores))
        sums = ops.cumsum(chances, axis=-1)
        # Rounding may neither end above the last row nor among its own.
        places = ops.minimum(ops.cast(places, "float32"), 1 - 1e-6)
        places = ops.expand_dims(places, 1) * sums[:, -1:]
        rows = ops.sum(ops.cast(sums <= places, "int32"), axis=-1)
        return (rows - own_rows)[:, None]

    def compute_output_spec(self, own, others, ids, places):
        return keras.KerasTensor((own.shape[0], 1), dtype="int32")
