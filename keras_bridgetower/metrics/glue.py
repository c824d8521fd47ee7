"""Metrics of the GLUE tasks, computed by scikit-learn and SciPy."""

import importlib

from keras import ops


def matthews_correlation(labels, predictions):
    """Compute the Matthews correlation of classes, CoLA's metric in GLUE.

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
    labels, predictions = _arrays(labels, predictions)
    metrics = _import("sklearn.metrics", "scikit-learn")
    return float(metrics.matthews_corrcoef(labels, predictions))


def f1_score(labels, predictions):
    """Compute F1 of class 1, the metric of MRPC and QQP in GLUE.

    Args:
        labels: int array `(examples,)` of 0 and 1.
        predictions: int array `(examples,)` of 0 and 1.

    Returns:
        float in 0..1; 0 if class 1 is in neither labels nor predictions.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: arrays of different shapes, or empty ones.

    Example:

    ```python
    f1_score([0, 1, 1], [0, 1, 0])  # 0.67
    ```

    Source: `sklearn.metrics.f1_score`.
    """
    labels, predictions = _arrays(labels, predictions)
    metrics = _import("sklearn.metrics", "scikit-learn")
    return float(metrics.f1_score(labels, predictions, zero_division=0))


def spearman_correlation(labels, predictions):
    """Compute Spearman's rank correlation, STS-B's metric in GLUE.

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
    labels, predictions = _arrays(labels, predictions)
    stats = _import("scipy.stats", "scipy")
    return float(stats.spearmanr(labels, predictions).statistic)


def _import(module, package):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This metric needs {package}: `pip install {package}`, or "
            "install keras-bridgetower with its extra `metrics`."
        ) from error


def _arrays(labels, predictions):
    """Return both as NumPy arrays, after a check of their shapes."""
    pair = [ops.convert_to_numpy(values) for values in (labels, predictions)]
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape or not pair[0].size:
        raise ValueError(
            "`labels` and `predictions` must be (examples,), at least one. "
            f"Received: labels of shape {pair[0].shape}, predictions of shape "
            f"{pair[1].shape}"
        )
    return pair
