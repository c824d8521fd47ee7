"""Losses: each returns one value per local sample."""

import keras
from keras import ops

from keras_bridgetower.validation import check_soft_scores


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class VQALoss(keras.losses.Loss):
    """Sigmoid cross-entropy, summed over the answers.

    Call arguments:
        y_true: float tensor `(batch, answers)`, soft scores in 0..1.
        y_pred: float tensor `(batch, answers)`, logits.

    Returns:
        Scalar: the mean over the batch.

    Raises:
        ValueError: the shapes differ.

    Example:

    ```python
    VQALoss()(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]))  # 2 log 2
    ```

    Source: BridgeTower's `compute_vqa`: mean over all elements times the
    number of answers.
    """

    def __init__(self, name="vqa_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        check_soft_scores(y_true, y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        losses = ops.binary_crossentropy(y_true, y_pred, from_logits=True)
        return ops.sum(losses, axis=-1)
