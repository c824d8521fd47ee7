"""Checks of losses and targets, and the share of rows without padding."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.objectives import losses


def has_embeddings(outputs):
    """Return True if the outputs of a task include embeddings."""
    return isinstance(outputs, dict) and "itc" in outputs


def check_reads_logits(loss):
    """Raise for a cross-entropy that would take logits for probabilities."""
    for one in keras.tree.flatten(loss):
        named = isinstance(one, str)
        name = one.title().replace("_", "") if named else type(one).__name__
        named = named and name.endswith("Crossentropy")
        if named or getattr(one, "from_logits", None) is False:
            raise ValueError(
                "`loss` must read logits. Leave it out, or pass "
                f"`keras.losses.{name}(from_logits=True)`. "
                f"Received: loss={one!r:.100}"
            )


def check_targets(loss, y, y_pred):
    """Raise if a sparse loss gets scores, or another loss gets class ids."""
    one_hot = isinstance(loss, keras.losses.CategoricalCrossentropy)
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy) or one_hot:
        ids = len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1
        if ids == one_hot:
            fit = "SparseCategorical" if ids else "Categorical"
            raise ValueError(
                f"`loss` must take targets of shape {tuple(y.shape)}. Leave it "
                f"out, or pass `keras.losses.{fit}Crossentropy("
                f"from_logits=True)`. Received: loss={loss.name!r}"
            )


def share_without_padding(weights):
    """Return the share of rows of the global batch that are not padding.

    Args:
        weights: float tensor `(batch, 1)`, or a nested structure of them.

    Returns:
        Scalar tensor, or None without weights.
    """
    given = [w for w in keras.tree.flatten(weights) if w is not None]
    if not given:
        return None
    padding = ops.all(ops.stack([losses.is_padding(w) for w in given]), axis=0)
    everywhere, _ = backend_ops.all_gather(ops.cast(padding, "float32"))
    return 1 - ops.mean(everywhere)
