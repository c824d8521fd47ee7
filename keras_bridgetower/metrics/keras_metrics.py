"""Metrics of training, as Keras metrics."""

import math

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import check_count
from keras_bridgetower.models.checks import sizes_differ
from keras_bridgetower.objectives import list_losses
from keras_bridgetower.objectives.losses import check_soft_scores
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
        y_pred: float tensor, as `pack_embeddings` returns it.

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


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MaskedTokenAccuracy(keras.metrics.Mean):
    """Share of the masked tokens whose label has the highest logit.

    The mean is over tokens, not over batches or texts. Pass it to `compile`
    in `weighted_metrics`, because Keras does not pass sample weights to
    `metrics`.

    Args:
        ignore_id: int, the label of empty slots, which are ignored; -100 as
            in `transformers`.
        name: str, name in the logs.
        dtype: dtype of the state.

    Call arguments:
        y_true: int tensor `(batch, M)`, ids of the masked tokens.
        y_pred: float tensor `(batch, M, vocabulary)`, logits.
        sample_weight: float tensor `(batch, M)` or `(batch,)`, or None.

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
        shape, logits = tuple(y_true.shape), tuple(y_pred.shape)
        if len(shape) + 1 != len(logits) or sizes_differ(shape, logits):
            raise ValueError(
                "`y_true` must hold token ids (batch, M) for logits (batch, M, "
                f"vocabulary). Received: shapes {shape} and {logits}"
            )
        y_true = ops.cast(y_true, "int32")
        best = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        weight = ops.cast(y_true != self.ignore_id, self.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, self.dtype)
            if len(sample_weight.shape) == 1:
                sample_weight = sample_weight[:, None]
            weight = weight * sample_weight
        correct = ops.cast(best == y_true, self.dtype)
        return super().update_state(correct, weight)

    def get_config(self):
        return {**super().get_config(), "ignore_id": self.ignore_id}


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class VQAScore(keras.metrics.MeanMetricWrapper):
    """Mean soft score of the answer with the highest logit.

    This is the validation score of the VQAv2 literature. It differs from the
    official accuracy if a correct answer is not in the answer list, or if all
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
    """Return the soft score `(batch,)` of the answer with the top logit."""
    y_true, y_pred = (ops.convert_to_tensor(y) for y in (y_true, y_pred))
    check_soft_scores(y_true, y_pred)
    best = ops.argmax(y_pred, axis=-1, keepdims=True)
    return ops.take_along_axis(y_true, best, axis=-1)[..., 0]


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class NDCG(keras.metrics.MeanMetricWrapper):
    """Normalized discounted cumulative gain of judged lists.

    The gain of a grade is `2 ** grade - 1`.

    Args:
        k: int, ranks of a list that count, or None for all.
        name: str, name in the logs.
        dtype: dtype of the state.

    Call arguments:
        y_true: float tensor `(batch, candidates)`, grades from 0, one of each
            list above 0; -1 for padding.
        y_pred: float tensor `(batch, candidates)`, scores. Of equal ones the
            first comes first.

    Raises:
        ValueError: `k` below 1, or shapes that differ.

    Example:

    ```python
    ndcg = NDCG()
    ndcg.update_state(np.array([[0.0, 1.0]]), np.array([[0.5, 0.1]]))
    ndcg.result()  # 1 / log2(3)
    ```

    Source: Järvelin and Kekäläinen (2002), with the gains of Burges et al.
    (2005).
    """

    def __init__(self, k=None, name="ndcg", dtype="float32"):
        if k is not None:
            check_count("k", k)
        super().__init__(_ndcg, name=name, dtype=dtype, k=k)
        self.k = k

    def get_config(self):
        return {"k": self.k, "name": self.name, "dtype": self.dtype}


def _ndcg(y_true, y_pred, k):
    y_true, y_pred = (ops.convert_to_tensor(y) for y in (y_true, y_pred))
    kept = list_losses.discounts(y_true, y_pred)
    if k is not None:
        kept = ops.where(kept < 1 / math.log2(k + 1.5), 0.0, kept)
    dcg = ops.sum(list_losses.gains(y_true) * kept, axis=-1)
    return ops.divide_no_nan(dcg, list_losses.best_dcg(y_true, k)[:, 0])
