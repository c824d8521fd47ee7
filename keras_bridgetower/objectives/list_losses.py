"""Losses of judged lists: the candidates of a query, each with a grade."""

import keras
import numpy as np
from keras import ops

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
