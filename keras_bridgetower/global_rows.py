"""Rows of the global batch, for pairs that reach beyond a replica's own."""

import keras
from keras import ops

from keras_bridgetower import engine


class NextRow(keras.layers.Layer):
    """Moves every row of the global batch up by one, the first one to its end.

    Call arguments:
        x: tensor `(batch, ...)`, the rows of this replica.

    Returns:
        Tensor as `x`: of each row the one that follows in the global batch.

    Example:

    ```python
    NextRow()(np.array([[1.0], [2.0], [3.0]]))  # [[2.0], [3.0], [1.0]]
    ```
    """

    def call(self, x):
        # The first row of each replica is all that crosses over.
        firsts, own = engine.all_gather(x[:1])
        following = ops.roll(firsts, -1, axis=0)[own]
        return ops.concatenate([x[1:], following[None]], axis=0)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class TakeRows(keras.layers.Layer):
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
    TakeRows()(np.array([[1.0], [2.0]]), np.array([[0, 1], [0, -1]]))
    # [[1.0], [2.0], [2.0], [1.0]]
    ```
    """

    def call(self, x, distances):
        every, first = engine.all_gather(x)
        own = first + ops.arange(ops.shape(x)[0], dtype="int32")
        rows = own[:, None] + ops.cast(distances, "int32")
        rows = ops.mod(rows, ops.shape(every)[0])
        return ops.take(every, ops.reshape(rows, (-1,)), axis=0)

    def compute_output_spec(self, x, distances):
        return keras.KerasTensor((None, *x.shape[1:]), dtype=x.dtype)
