"""Losses: each returns one value per local sample."""

import keras
from keras import ops


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
        if tuple(y_true.shape)[1:] != tuple(y_pred.shape)[1:]:
            raise ValueError(
                "`y` must hold soft scores (batch, answers) like the logits. "
                "The preprocessor makes them from ids and strings; without "
                "one, call `preprocessor.targets(y)` yourself. Received: y of "
                f"shape {tuple(y_true.shape)}, logits of shape "
                f"{tuple(y_pred.shape)}"
            )
        y_true = ops.cast(y_true, y_pred.dtype)
        losses = ops.binary_crossentropy(y_true, y_pred, from_logits=True)
        return ops.sum(losses, axis=-1)
