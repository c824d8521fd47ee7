"""Losses of judged lists: the candidates of a query, each with a grade."""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.models.checks import sizes_differ

# The grade of padding, which fills a list up.
PADDING = -1
_LOWEST = -1e9


def _split(grades, scores):
    """Return grades with 0 for padding, a mask of the judged, and scores."""
    shapes = tuple(grades.shape), tuple(scores.shape)
    if len(shapes[0]) != 2 or sizes_differ(*shapes):
        raise ValueError(
            "`y_true` must hold a grade for each score, (batch, candidates). "
            f"Received: shapes {shapes[0]} and {shapes[1]}"
        )
    grades = ops.cast(grades, "float32")
    judged = grades > PADDING
    scores = ops.where(judged, ops.cast(scores, "float32"), _LOWEST)
    return ops.where(judged, grades, 0.0), judged, scores


def gains(grades):
    """Compute `2 ** grade - 1`, 0 for padding."""
    grades = ops.cast(grades, "float32")
    return ops.where(grades > PADDING, 2.0**grades - 1.0, 0.0)


def discounts(grades, scores):
    """Compute `1 / log2(1 + rank)` of each candidate, by falling scores.

    Args:
        grades: float tensor `(batch, candidates)`.
        scores: float tensor `(batch, candidates)`. Of equal ones the first
            comes first.

    Returns:
        float32 tensor `(batch, candidates)`.
    """
    _, _, scores = _split(grades, scores)
    one, other = scores[:, :, None], scores[:, None, :]
    count = scores.shape[-1]
    later = ops.convert_to_tensor(np.triu(np.ones((count, count), bool), 1))
    is_after = (other < one) | ((other == one) & later)
    # Scores that are NaN come last.
    ranks = count - ops.sum(ops.cast(is_after, "float32"), axis=-1)
    return np.log(2.0) / ops.log(1.0 + ranks)


def best_dcg(grades, k=None):
    """Compute the DCG of each list in the best order.

    Args:
        grades: float tensor `(batch, candidates)`.
        k: int, ranks that count, or None for all.

    Returns:
        float32 tensor `(batch, 1)`.
    """
    best = ops.flip(ops.sort(gains(grades), axis=-1), axis=-1)[:, :k]
    discount = 1 / np.log2(np.arange(best.shape[-1]) + 2.0)
    discount = ops.convert_to_tensor(discount, "float32")
    return ops.sum(best * discount, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ListwiseSoftmaxLoss(keras.losses.Loss):
    """Softmax cross-entropy of a list's scores, with grades as targets.

    Call arguments:
        y_true: float tensor `(batch, candidates)`, grades from 0; -1 for
            padding. The grades of a list are divided by their sum.
        y_pred: float tensor `(batch, candidates)`, scores.

    Returns:
        Scalar: the mean over the lists, 0 for a list without a grade above 0.

    Raises:
        ValueError: the shapes differ.

    Example:

    ```python
    ListwiseSoftmaxLoss()(np.array([[1.0, 0.0]]), np.zeros((1, 2)))  # log(2)
    ```

    Source: the loss of ListNet's top-one probabilities (Cao et al., 2007),
    with grades in place of their softmax (Bruch et al., 2019).
    """

    def __init__(self, name="listwise_softmax_loss", **kwargs):
        super().__init__(name=name, **{"dtype": "float32"} | kwargs)

    def call(self, y_true, y_pred):
        grades, _, scores = _split(y_true, y_pred)
        total = ops.sum(grades, axis=-1, keepdims=True)
        targets = ops.divide_no_nan(grades, total)
        return -ops.sum(targets * ops.log_softmax(scores), axis=-1)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class LambdaRankLoss(keras.losses.Loss):
    """Logistic loss of pairs, weighted by how a swap would change nDCG.

    For candidates i and j of a list, i with the higher grade, sums
    `|gain_i - gain_j| * |discount_i - discount_j| / best DCG *
    log(1 + exp(score_j - score_i))`. Its gradients are those of LambdaRank.

    Call arguments:
        y_true, y_pred: as in `ListwiseSoftmaxLoss`.

    Returns:
        Scalar: the mean over the lists, 0 for a list of equal grades.

    Raises:
        ValueError: the shapes differ.

    Example:

    ```python
    LambdaRankLoss()(np.array([[1.0, 0.0]]), np.zeros((1, 2)))
    ```

    Source: LambdaRank (Burges, 2010) as a loss: LambdaLoss (Wang et al.,
    2018).
    """

    def __init__(self, name="lambda_rank_loss", **kwargs):
        super().__init__(name=name, **{"dtype": "float32"} | kwargs)

    def call(self, y_true, y_pred):
        grades, judged, scores = _split(y_true, y_pred)

        def differences(values):
            return values[:, :, None] - values[:, None, :]

        exchange = ops.abs(differences(gains(y_true))) * ops.abs(
            differences(discounts(y_true, y_pred))
        )
        weights = ops.stop_gradient(
            ops.divide_no_nan(exchange, best_dcg(y_true)[:, :, None])
        )
        counts = (differences(grades) > 0) & judged[:, None, :]
        losses = ops.softplus(-differences(scores))
        losses = ops.where(counts, weights * losses, 0.0)
        return ops.sum(losses, axis=(1, 2))


def _with_teacher(y_true, y_pred):
    """Return a teacher's scores and those of a model, and where there are."""
    told = ops.cast(y_true, "float32")
    given = ops.logical_not(ops.isnan(told))
    scores = ops.cast(y_pred, "float32")
    _split(ops.where(given, 1.0, PADDING), scores)
    return ops.where(given, told, 0.0), scores, given


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MarginMSELoss(keras.losses.Loss):
    """Squared differences of a model's margins and those of a teacher.

    The margin of two candidates of a list is the difference of their scores.
    All pairs of a list count, so only differences of scores are learned.

    Call arguments:
        y_true: float tensor `(batch, candidates)`, scores of a teacher; NaN
            for candidates that it has not scored.
        y_pred: float tensor `(batch, candidates)`, scores.

    Returns:
        Scalar: the mean over the pairs of a list, and over the lists.

    Raises:
        ValueError: the shapes differ.

    Example:

    ```python
    MarginMSELoss()(np.array([[3.0, 1.0]]), np.zeros((1, 2)))  # 4.0
    ```

    Source: Hofstätter et al., Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation (2020).
    """

    def __init__(self, name="margin_mse_loss", **kwargs):
        super().__init__(name=name, **{"dtype": "float32"} | kwargs)

    def call(self, y_true, y_pred):
        told, scores, given = _with_teacher(y_true, y_pred)
        off = ops.where(given, scores - told, 0.0)
        pairs = ops.logical_and(given[:, :, None], given[:, None, :])
        pairs = ops.cast(pairs, "float32") * (1 - ops.eye(off.shape[-1]))
        squares = ops.square(off[:, :, None] - off[:, None, :])
        total = ops.sum(pairs * squares, axis=(1, 2))
        return ops.divide_no_nan(total, ops.sum(pairs, axis=(1, 2)))


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ListDistillationLoss(keras.losses.Loss):
    """KL divergence of a list's softmax from that of a teacher.

    Args:
        temperature: float, by which both scores are divided.
        name, **kwargs: as in `keras.losses.Loss`.

    Call arguments:
        y_true, y_pred: as in `MarginMSELoss`.

    Returns:
        Scalar: the mean over the lists.

    Raises:
        ValueError: the shapes differ, or a temperature that is not above 0.

    Example:

    ```python
    ListDistillationLoss()(np.array([[0.0, 0.0]]), np.zeros((1, 2)))  # 0.0
    ```

    Source: Hinton et al., Distilling the Knowledge in a Neural Network (2015).
    """

    def __init__(
        self, temperature=1.0, name="list_distillation_loss", **kwargs
    ):
        super().__init__(name=name, **{"dtype": "float32"} | kwargs)
        check_above_zero("temperature", temperature)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        told, scores, given = _with_teacher(y_true, y_pred)

        def logs(x):
            x = ops.where(given, x / self.temperature, _LOWEST)
            return ops.log_softmax(x, axis=-1)

        wanted, found = logs(told), logs(scores)
        return ops.sum(ops.exp(wanted) * (wanted - found), axis=-1)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}
