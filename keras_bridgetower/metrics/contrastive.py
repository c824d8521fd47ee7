"""Accuracy of contrastive training, within a batch."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.objectives.losses import unpack_embeddings


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ContrastiveAccuracy(keras.metrics.MeanMetricWrapper):
    """Share of texts whose nearest image in the global batch is a match.

    Larger batches are harder. To measure over a whole data set, use
    `retrieval_recall`.

    Args:
        ways: as in `ContrastiveLoss`.
        name: str, name in the logs.
        dtype: dtype of the state.

    Call arguments:
        y_true: int tensor `(batch,)`, image ids.
        y_pred: float tensor, what `pack_embeddings` returned.

    Example:

    ```python
    accuracy = ContrastiveAccuracy("two_way")
    embeddings = {"text": np.eye(2), "image": np.eye(2)[::-1]}
    accuracy.update_state([0, 1], pack_embeddings(embeddings, 0.0))
    accuracy.result()  # 0.0
    ```
    """

    def __init__(self, ways="three_way", name="itc_accuracy", dtype="float32"):
        super().__init__(_nearest_matches, name=name, dtype=dtype, ways=ways)
        self.ways = ways

    def get_config(self):
        return {"ways": self.ways, "name": self.name, "dtype": self.dtype}


def _nearest_matches(y_true, y_pred, ways):
    y_true, y_pred = (ops.convert_to_tensor(y) for y in (y_true, y_pred))
    text, image, *_ = unpack_embeddings(y_pred, ways)
    ids = ops.reshape(ops.cast(y_true, "int32"), (-1,))
    images, _ = backend_ops.all_gather(image)
    all_ids, _ = backend_ops.all_gather(ids)
    best = ops.argmax(ops.matmul(text, ops.transpose(images)), axis=-1)
    return ops.cast(ops.take(all_ids, best) == ids, "float32")
