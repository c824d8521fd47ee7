"""Metrics of the GLUE tasks, computed by scikit-learn and SciPy."""

from keras import ops

_INSTALL = (
    "This metric needs {0}: `pip install {0}`, or install keras-bridgetower "
    "with its extra `metrics`."
)


def matthews_correlation(labels, predictions):
    """Matthews correlation of classes, the metric of CoLA in GLUE.

    Args:
        labels: int array `(examples,)`.
        predictions: int array `(examples,)`.

    Returns:
        float in -1..1.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: arrays of different shapes, or empty ones.

    Example:

    ```python
    matthews_correlation([0, 1, 1, 0], [0, 1, 1, 0])  # 1.0
    ```

    Source: `sklearn.metrics.matthews_corrcoef`.
    """
    labels, predictions = _pair(labels, predictions)
    try:
        from sklearn.metrics import matthews_corrcoef
    except ImportError as error:
        raise ImportError(_INSTALL.format("scikit-learn")) from error
    return float(matthews_corrcoef(labels, predictions))


def f1_score(labels, predictions):
    """F1 of class 1, the metric of MRPC and QQP in GLUE.

    Args:
        labels: int array `(examples,)` of 0 and 1.
        predictions: int array `(examples,)` of 0 and 1.

    Returns:
        float in 0..1; 0 if class 1 is among neither labels nor predictions.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: arrays of different shapes, or empty ones.

    Example:

    ```python
    f1_score([0, 1, 1], [0, 1, 0])  # 0.67
    ```

    Source: `sklearn.metrics.f1_score`.
    """
    labels, predictions = _pair(labels, predictions)
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError(_INSTALL.format("scikit-learn")) from error
    return float(metrics.f1_score(labels, predictions, zero_division=0))


def spearman_correlation(labels, predictions):
    """Spearman's rank correlation, the metric of STS-B in GLUE.

    Args:
        labels: float array `(examples,)`.
        predictions: float array `(examples,)`.

    Returns:
        float in -1..1; NaN, with a warning of SciPy, if labels or
        predictions are constant.

    Raises:
        ImportError: SciPy is not installed.
        ValueError: arrays of different shapes, or empty ones.

    Example:

    ```python
    spearman_correlation([1.0, 2.0, 5.0], [0.1, 0.2, 0.3])  # 1.0
    ```

    Source: `scipy.stats.spearmanr`.
    """
    labels, predictions = _pair(labels, predictions)
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise ImportError(_INSTALL.format("scipy")) from error
    return float(spearmanr(labels, predictions).statistic)


def _pair(labels, predictions):
    """Both as NumPy arrays, after a check of their shapes."""
    pair = [ops.convert_to_numpy(values) for values in (labels, predictions)]
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape or not pair[0].size:
        raise ValueError(
            "`labels` and `predictions` must be (examples,), at least one. "
            f"Received: labels of shape {pair[0].shape}, predictions of shape "
            f"{pair[1].shape}"
        )
    return pair
