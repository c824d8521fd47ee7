"""The soft score of visual question answering, as a metric of training."""

import keras
from keras import ops

from keras_bridgetower.objectives.label_checks import check_soft_scores


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class VQAScore(keras.metrics.MeanMetricWrapper):
    """Mean soft score of the answer with the highest logit.

    This is the validation score of the VQAv2 literature. It differs from the
    official accuracy if a true answer is not in the answer list, or if all
    ten people agree.

    Args:
        name: str, name in the logs.
        dtype: dtype of the state.

    Call arguments:
        y_true: float tensor `(batch, answers)`, soft scores in 0..1.
        y_pred: float tensor `(batch, answers)`, logits.

    Example:

    ```python
    score = VQAScore()
    score.update_state([[0.3, 1.0]], [[2.0, -1.0]])
    score.result()  # 0.3
    ```

    Source: BridgeTower's `VQAScore`.
    """

    def __init__(self, name="vqa_score", dtype="float32"):
        super().__init__(score_of_best_answer, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def score_of_best_answer(y_true, y_pred):
    """Soft score `(batch,)` of the answer with the highest logit."""
    y_true, y_pred = (ops.convert_to_tensor(y) for y in (y_true, y_pred))
    check_soft_scores(y_true, y_pred)
    best = ops.argmax(y_pred, axis=-1, keepdims=True)
    return ops.take_along_axis(y_true, best, axis=-1)[..., 0]
