"""Accuracy of masked language modelling, over masked tokens."""

import keras
from keras import ops

from keras_bridgetower.objectives.label_checks import check_masked_ids


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MaskedTokenAccuracy(keras.metrics.Mean):
    """Share of the masked tokens whose highest logit is that of the label.

    The mean is over tokens, not over batches or texts. Pass it to `compile`
    in `weighted_metrics`, because Keras does not pass sample weights to
    `metrics`.

    Args:
        ignore_id: int, the label of slots without a masked token, which do
            not count; -100 as in `transformers`.
        name: str, name in the logs.
        dtype: dtype of the state.

    Call arguments:
        y_true: int tensor `(batch, M)`, ids of the masked tokens.
        y_pred: float tensor `(batch, M, vocabulary)`, logits.
        sample_weight: float tensor `(batch, M)` or `(batch,)`, or None.

    Raises:
        ValueError: labels and logits whose shapes do not agree.

    Example:

    ```python
    accuracy = MaskedTokenAccuracy()
    logits = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]])
    accuracy.update_state([[1, 1, -100]], logits)
    accuracy.result()  # 0.5
    ```

    Source: the MLM accuracy of ViLT and BridgeTower.
    """

    def __init__(
        self, ignore_id=-100, name="masked_token_accuracy", dtype="float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.ignore_id = ignore_id

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = (ops.convert_to_tensor(y) for y in (y_true, y_pred))
        check_masked_ids(y_true, y_pred)
        y_true = ops.cast(y_true, "int32")
        best = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        weight = ops.cast(y_true != self.ignore_id, self.dtype)
        if sample_weight is not None:
            given = ops.cast(sample_weight, self.dtype)
            if len(given.shape) == 1:
                given = given[:, None]
            weight = weight * given
        right = ops.cast(best == y_true, self.dtype)
        return super().update_state(right, weight)

    def get_config(self):
        return {
            "ignore_id": self.ignore_id,
            "name": self.name,
            "dtype": self.dtype,
        }
