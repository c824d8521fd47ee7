"""Metrics of classes: the official evaluation of NLVR2, and those of GLUE."""

import collections
import dataclasses
import itertools

import numpy as np
from keras import ops

from keras_bridgetower.checks import load_extra

PROTOCOL = "NLVR2 accuracy and consistency"
_TRUTHS = {"True": True, "False": False, 1: True, 0: False}


@dataclasses.dataclass(frozen=True)
class NLVR2Report:
    """The result of an evaluation, in percent; `print` shows all of it.

    Args:
        accuracy: float, share of correct answers.
        consistency: float, share of the sentences answered correctly for all
            their pairs of images.
        examples: int, number of answers.
        sentences: int, number of distinct sentences.
        split: str, name of the split.
        protocol: str, name of the evaluation.
    """

    accuracy: float
    consistency: float
    examples: int
    sentences: int
    split: str
    protocol: str = PROTOCOL

    def __str__(self):
        return (
            f"{self.protocol}; split: {self.split}, {self.examples} examples, "
            f"{self.sentences} sentences\naccuracy: {self.accuracy:.2f} %\n"
            f"consistency: {self.consistency:.2f} %"
        )


def evaluate_nlvr2(identifiers, labels, predictions, split=None):
    """Compute the accuracy and consistency of NLVR2.

    Args:
        identifiers: list of distinct str `"split-set-pair-sentence"`. Those
            that differ only in the pair have the same sentence.
        labels: array-like `(examples,)` of bools, of 0 and 1, or of "True"
            and "False" as in the files.
        predictions: array-like `(examples,)`, in the same form.
        split: str, name of the split for the report; by default the first
            part of the identifiers.

    Returns:
        `NLVR2Report`.

    Raises:
        ValueError: different numbers of values, no examples, or identifiers
            that are repeated or malformed, or other labels.

    Example:

    ```python
    names = ["dev-0-0-0", "dev-0-1-0", "dev-1-0-0"]
    report = evaluate_nlvr2(names, ["True", "False", "True"], [1, 1, 1])
    report.accuracy, report.consistency  # 66.7, 50.0
    ```

    Source: `metrics.py` of NLVR2 (Suhr et al., 2019).
    """
    # The name of a split may have hyphens.
    parts = [str(identifier).rsplit("-", 3) for identifier in identifiers]
    distinct = {*map(tuple, parts)}
    if {*map(len, distinct)} != {4} or len(distinct) < len(parts):
        raise ValueError(
            "`identifiers` must be distinct strings 'split-set-pair-sentence'"
            f", and at least one. Received: {parts[:3]!s:.200}, "
            f"{len(distinct)} distinct of {len(parts)}"
        )
    truths = _truths("labels", labels), _truths("predictions", predictions)
    rows = zip(parts, *truths, strict=True)
    splits, sentences = {}, collections.defaultdict(list)
    for (name, group, _, sentence), label, prediction in rows:
        splits[name] = None
        sentences[name, group, sentence].append(label == prediction)
    correct = [*itertools.chain(*sentences.values())]
    return NLVR2Report(
        accuracy=float(100 * np.mean(correct)),
        consistency=float(100 * np.mean([*map(all, sentences.values())])),
        examples=len(correct),
        sentences=len(sentences),
        split=", ".join(splits) if split is None else split,
    )


def _truths(name, values):
    try:
        return [_TRUTHS[value] for value in np.asarray(values).tolist()]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"`{name}` must be bools, 0 and 1, or 'True' and 'False'. "
            f"Received: {error}"
        ) from error


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
