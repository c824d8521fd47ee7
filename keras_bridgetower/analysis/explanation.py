"""Relevance: explain one answer of a task by attention and its gradient."""

import collections

import numpy as np
from keras import ops

from keras_bridgetower.analysis import maps
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import is_integer
from keras_bridgetower.models.attention import watch_attention


def relevance(model, image, text, answer=None):
    """Explain one answer by attention weighted by its gradient.

    `R <- R + sum over branches of mean over heads of max(dS/dA * A, 0) R`
    from the identity, layer by layer, with A a branch's attention and S the
    answer's logit; a bridge adds the identity once more.

    Args:
        model, image, text: as `attention_map`. The task must predict logits
            of classes.
        answer: int or, for a task with `answers` or `labels`, one of them.
            By default the class of the highest logit. For a text with a
            `<mask>`, the token id at the first one.

    Returns:
        `AttentionMap`.

    Raises:
        ValueError: a task without preprocessor, or an unknown answer.

    Example:

    ```python
    seen = relevance(vqa, photo, "what color is the shape?", answer="red")
    seen.whole.argmax()
    ```

    Source: generic attention explainability (Chefer et al., 2021), over both
    modalities joined.
    """
    features = maps.pair_features(model, image, text)
    if "mask_positions" in model.input:
        features = _with_mask(model, features)
    tensors = {k: ops.convert_to_tensor(v) for k, v in features.items()}
    found, logits = _captured(model, tensors)
    head = next(iter(model.head_values.values()))
    names = head.get("answers") or head.get("labels") or []
    index = _class_index(names, logits, answer)
    gradients = _gradients(model, tensors, found, index)
    weighted = {at: np.maximum(found[at] * gradients[at], 0) for at in found}
    joined = []
    for place in range(maps.pixels(features).shape[1]):
        of_place = {
            name: x for (name, at), x in weighted.items() if at == place
        }
        joined.append(_rollout(model, features, of_place))
    name = names[index] if names else index
    return maps.make_map(model, features, joined, f"relevance for {name}")


def _captured(model, tensors):
    """Run a forward pass and capture its attention maps.

    Returns:
        `(maps, logits)`: dict from `(name, visit)` to a NumPy array, the map
        of a layer; a layer is visited once per picture.
    """
    maps = {}

    def keep(at, weights):
        maps[at] = ops.convert_to_numpy(weights)
        return weights

    with (
        model.inference.reading("relevance"),
        backend_ops.inference_scope(),
        watch_attention(_by_visit(keep)),
    ):
        model.new_heads.check("relevance", model.answering_heads)
        logits = model.outputs_of(tensors)
    return maps, logits


def _gradients(model, tensors, maps, index):
    """Compute the gradients of one logit with respect to each map."""

    def score(probes):
        added = dict(zip(maps, probes, strict=True))
        add = _by_visit(lambda at, weights: weights + added[at])
        with watch_attention(add):
            logits = model.outputs_of(tensors)
        return ops.reshape(logits, (-1, logits.shape[-1]))[0, index]

    # The gradient of a term added to a map is that of the map.
    with model.inference.reading("relevance"):
        gradients = backend_ops.gradients(
            score, [np.zeros_like(x) for x in maps.values()]
        )
    return dict(zip(maps, gradients, strict=True))


def _by_visit(watch):
    """Make a watcher that also receives the number of earlier visits."""
    visits = collections.Counter()

    def watcher(name, weights):
        at = name, visits[name]
        visits[name] += 1
        return watch(at, weights)

    return watcher


def _rollout(model, features, weighted):
    """Compute the relevance of all tokens over all layers.

    Args:
        model: the task.
        features: dict of arrays, of one text.
        weighted: dict from the name of a layer to its weighted map
            `(1, heads, queries, keys)`.

    Returns:
        array `(T, T + P)`: a row for each token of the text. The first row
        is the mean of the tokens that the head reads.
    """
    fusion = model.backbone.fusion
    text = features["token_ids"].shape[1]
    sizes = text, model.backbone.output["image"].shape[1]
    # Tokens that the last layer computes, and those that the head reads.
    last, read = (1, 1), [0, text]
    if "mask_positions" in model.input:
        last, read = (text, 0), [int(features["mask_positions"][0, 0])]
    identity = np.eye(sum(sizes))
    relevances = np.zeros_like(identity)
    for layer, step in enumerate(fusion.steps):
        if fusion.taps[layer] is not None:
            relevances = relevances + identity
        queries = last if layer == fusion.num_layers - 1 else sizes
        parts = step.branches(weighted, sizes, queries)
        change = sum(part[0].mean(0) for part in parts)
        relevances = relevances + change @ relevances
    rows = relevances[:text].copy()
    rows[0] = relevances[read].mean(0)
    return rows


def _with_mask(model, features):
    """Add the position of the first masked token to features."""
    blank = features["token_ids"] == model.preprocessor.tokenizer.mask_token_id
    if not blank.any():
        raise ValueError("`text` must hold a `<mask>` to explain its token.")
    positions = blank.argmax(1)[:, None].astype("int32")
    return features | {"mask_positions": positions}


def _class_index(names, logits, answer):
    """Return the class of an answer; by default the most likely."""
    count = logits.shape[-1]
    if answer is None:
        flat = ops.convert_to_numpy(logits).reshape(-1, count)
        return int(flat[0].argmax())
    if answer in names:
        return names.index(answer)
    # NLVR2's own verb answers True and False.
    is_bool = isinstance(answer, (bool, np.bool_)) and count == 2
    if is_bool or (is_integer(answer) and 0 <= answer < count):
        return int(answer)
    allowed = f" or one of {names[:20]}" if names else ""
    raise ValueError(
        f"`answer` must be an int from 0 to {count - 1}{allowed}. "
        f"Received: answer={answer!r}"
    )
