"""Calibration: how reliable scores are, and which inputs are unknown."""

import math

import numpy as np

from keras_bridgetower import checks

# With a best temperature beyond them, all or none of the scores are right.
_LIMITS = (0.01, 100.0)
# Each halves the logarithm of the range.
_HALVINGS = 60


def fit_temperature(logits, labels):
    """Compute the temperature that fits the scores of a task to its labels.

    Logits divided by it have the lowest cross-entropy. The order of the classes
    does not change. Use data that the task was not trained on.

    Args:
        logits: float array `(rows, classes)`.
        labels: int array `(rows,)` of class ids, for scores by a softmax; or
            float array `(rows, classes)` in 0..1, for sigmoids, as in VQA.

    Returns:
        float, clipped to 0.01..100. Above 1 the scores were too high.

    Raises:
        ValueError: shapes that do not fit together, ids out of range, or
            logits that are not finite.

    Example:

    ```python
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    fit_temperature(logits, [0, 0, 1, 1])  # 1.82: 2 / log(3)
    ```

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
    """
    logits = np.asarray(logits, "float64")
    labels = np.asarray(labels)
    scored = labels.ndim == 2
    _check_labels(logits, labels, scored)
    to_scores = _sigmoid if scored else softmax
    targets = labels if scored else np.eye(logits.shape[1])[labels]

    def too_large(factor):
        # The loss is convex in the factor of the logits; this is its slope.
        return np.sum((to_scores(factor * logits) - targets) * logits) > 0

    low, high = 1 / _LIMITS[1], 1 / _LIMITS[0]
    for _ in range(_HALVINGS):
        factor = math.sqrt(low * high)
        low, high = (low, factor) if too_large(factor) else (factor, high)
    return 1 / math.sqrt(low * high)


def _check_labels(logits, labels, scored):
    right = logits.ndim == 2 and logits.size and np.isfinite(logits).all()
    if right and scored:
        right = labels.shape == logits.shape
        right = right and (0 <= labels).all() and (labels <= 1).all()
    elif right:
        right = labels.shape == logits.shape[:1] and labels.dtype.kind in "iu"
        right = right and 0 <= labels.min() <= labels.max() < logits.shape[1]
    if not right:
        raise ValueError(
            "`logits` must be finite numbers (rows, classes), and `labels` a "
            "class id for each row, or a score in 0..1 for each logit. "
            f"Received: logits of shape {logits.shape}, labels of shape "
            f"{labels.shape} and type {labels.dtype}"
        )


def softmax(logits):
    """Compute the softmax of the last axis, in NumPy."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def match_scores(logits):
    """Return how well pairs match: "match" minus "no match".

    The difference of both logits compares texts: it orders pairs as their
    probability does, of which it is the log-odds.

    Args:
        logits: array or tensor `(..., 2)` of a matching head, or `(..., 1)` of
            a ranking head, whose logit is the score.

    Returns:
        Array or tensor `(...)`.
    """
    scores = logits[..., -1]
    return scores - logits[..., 0] if logits.shape[-1] > 1 else scores


def match_shares(scores, ranked=False):
    """Return the probabilities of `match_scores`.

    Args:
        scores: array `(..., texts)`.
        ranked: bool, True for the scores of a ranking head, which compares the
            texts of a picture: their probabilities add up to 1.
    """
    return softmax(scores) if ranked else _sigmoid(scores)


def _sigmoid(logits):
    # Unlike exp, tanh never overflows.
    return (1 + np.tanh(logits / 2)) / 2


def expected_calibration_error(scores, right, bins=15):
    """Compute the difference between scores and the shares of right answers.

    Answers are sorted into bins of equal width by their score. The error is the
    mean difference of the mean score and the share of right answers in a bin,
    weighted by the number of answers.

    Args:
        scores: float array `(rows,)` in 0..1, of the best answers.
        right: array `(rows,)` in 0..1, or of bool: how right each answer is.
        bins: int.

    Returns:
        float in 0..1, the lower the better.

    Raises:
        ValueError: different lengths, no scores, or scores out of 0..1.

    Example:

    ```python
    expected_calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0])  # 0.15
    ```

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
    """
    checks.check_count("bins", bins)
    scores, right = (np.asarray(x, "float64") for x in (scores, right))
    same = scores.shape == right.shape and scores.ndim == 1 and scores.size
    both = np.stack([scores, right]) if same else np.array(np.nan)
    if not ((0 <= both) & (both <= 1)).all():
        raise ValueError(
            "`scores` and `right` must hold as many numbers in 0..1, at least "
            f"one. Received: shapes {scores.shape} and {right.shape}"
        )
    # The upper end belongs to a bin, as in the paper.
    numbers = np.maximum(np.ceil(scores * bins).astype(int) - 1, 0)
    gaps = np.bincount(numbers, scores - right)
    return float(np.abs(gaps).sum() / len(scores))


def energy(logits):
    """Compute the energy of rows of logits: high for unknown inputs.

    Args:
        logits: float array `(..., classes)`.

    Returns:
        float64 array `(...)`: minus the logarithm of the sum of exponentials.

    Example:

    ```python
    energy([[0.0, 0.0], [9.0, 0.0]])  # [-0.69, -9.00]
    ```

    Source: Liu et al., Energy-based Out-of-distribution Detection (NeurIPS
    2020), at temperature 1.
    """
    return -np.logaddexp.reduce(np.asarray(logits, "float64"), axis=-1)


def threshold_for(scores, share=0.95):
    """Return the highest threshold that a share of known inputs reaches.

    Args:
        scores: array `(rows,)` of scores of known inputs that the task was
            not trained on; higher for better known ones, as `-energy(logits)`.
        share: float above 0, to 1.

    Returns:
        float, one of the scores; at least this share of them is not lower.

    Raises:
        ValueError: no scores, scores that are NaN, or another share.

    Example:

    ```python
    threshold_for([5.0, 1.0, 4.0, 3.0], share=0.75)  # 3.0
    ```
    """
    checks.check_part("share", share)
    scores = np.sort(np.asarray(scores, "float64"))
    if scores.ndim != 1 or not scores.size or np.isnan(scores).any():
        raise ValueError(
            "`scores` must be one list of numbers, at least one. "
            f"Received: shape {scores.shape}"
        )
    return float(scores[-math.ceil(share * scores.size)])
