"""Metrics of the GLUE tasks, computed by scikit-learn and SciPy."""

from keras import ops

from keras_bridgetower.checks import load_extra


def matthews_correlation(labels, predictions):
    """Compute the Matthews correlation of classes, CoLA's metric in GLUE.

    Args:
        labels: int array `(examples,)`.
        predictions: int array `(examples,)`.

    Returns:
        float in -1..1.

    Example:

    ```python
    matthews_correlation([0, 1, 1, 0], [0, 1, 1, 0])  # 1.0
    ```

    Source: `sklearn.metrics.matthews_corrcoef`.
    """
    metrics = load_extra("sklearn.metrics", "metrics")
    return float(metrics.matthews_corrcoef(*_arrays(labels, predictions)))


def f1_score(labels, predictions):
    """Compute F1 of class 1, the metric of MRPC and QQP in GLUE.

    Args:
        labels: int array `(examples,)` of 0 and 1.
        predictions: int array `(examples,)` of 0 and 1.

    Returns:
        float in 0..1; 0 if class 1 is in neither labels nor predictions.

    Example:

    ```python
    f1_score([0, 1, 1], [0, 1, 0])  # 0.67
    ```

    Source: `sklearn.metrics.f1_score`.
    """
    metrics = load_extra("sklearn.metrics", "metrics")
    pair = _arrays(labels, predictions)
    return float(metrics.f1_score(*pair, zero_division=0))


def spearman_correlation(labels, predictions):
    """Compute Spearman's rank correlation, STS-B's metric in GLUE.

    Args:
        labels: float array `(examples,)`.
        predictions: float array `(examples,)`.

    Returns:
        float in -1..1; NaN, with a warning of SciPy, if labels or
        predictions are constant.

    Example:

    ```python
    spearman_correlation([1.0, 2.0, 5.0], [0.1, 0.2, 0.3])  # 1.0
    ```

    Source: `scipy.stats.spearmanr`.
    """
    stats = load_extra("scipy.stats", "metrics")
    return float(stats.spearmanr(*_arrays(labels, predictions)).statistic)


def _arrays(labels, predictions):
    return [ops.convert_to_numpy(values) for values in (labels, predictions)]
