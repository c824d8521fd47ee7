"""Checks of labels and sample weights before use."""

import numpy as np


def check_scores(name, scores):
    """Refuse soft scores below 0 or above 1."""
    scores = np.asarray(scores)
    # NaN passes here; the loss becomes NaN, which training reports.
    wrong = (scores < 0) | (scores > 1)
    if wrong.any():
        raise ValueError(
            f"`{name}` must hold soft scores from 0 to 1; divide percentages "
            f"by 100. Received: {name} with "
            f"{scores[wrong].reshape(-1)[0].item()!r}"
        )


def check_soft_scores(y_true, y_pred):
    """Refuse targets of another shape than the logits.

    They would be broadcast, and the loss would be wrong without an error.
    """
    if tuple(y_true.shape)[1:] != tuple(y_pred.shape)[1:]:
        raise ValueError(
            "`y` must hold soft scores (batch, answers) like the logits. The "
            "preprocessor makes them from ids and strings; without one, call "
            "`preprocessor.targets(y)` yourself. Received: y of shape "
            f"{tuple(y_true.shape)}, logits of shape {tuple(y_pred.shape)}"
        )


def check_sample_weights(weights, samples=None):
    """Refuse sample weights that are not one for each sample.

    Args:
        weights: array or tensor.
        samples: int, the number of samples, or None if it is not known.
    """
    shape = tuple(weights.shape)
    one_each = len(shape) == 1 or len(shape) == 2 and shape[1] == 1
    if not one_each or None not in (shape[0], samples) and shape[0] != samples:
        raise ValueError(
            "`sample_weight` must hold one weight for each sample, (batch,). "
            "Tokens are left out by the label -100. Received: sample_weight "
            f"of shape {shape}"
            + ("" if samples is None else f" for {samples} samples")
        )


def check_masked_ids(y_true, y_pred):
    """Refuse labels that are not one token id for each vector of logits."""
    shape = tuple(y_true.shape)
    if len(shape) != 2 or shape[1:] != tuple(y_pred.shape)[1:-1]:
        raise ValueError(
            "`y_true` must hold token ids (batch, M) for logits (batch, "
            f"M, vocabulary). Received: y_true of shape {shape}, y_pred "
            f"of shape {tuple(y_pred.shape)}"
        )


def check_image_ids(ids):
    """Refuse labels that are not one image id for each sample."""
    # The dtype is not checked: with several replicas on TensorFlow, Keras
    # builds losses on floats in place of the labels.
    shape = tuple(ids.shape)
    if shape[1:] not in ((), (1,)):
        raise ValueError(
            "`y` must hold image ids, integers (batch,). The preprocessor "
            f"makes them from strings. Received: y of shape {shape}"
        )
