"""Relevance: explains one answer of a task by attention and its gradient."""

import collections

import numpy as np
from keras import ops

from keras_bridgetower.analysis.maps import features_of_pair
from keras_bridgetower.analysis.maps import made_of
from keras_bridgetower.analysis.maps import pixels_of
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import is_integer
from keras_bridgetower.models.attention import watch_attention


def relevance(model, image, text, answer=None):
    """What speaks for one answer: attention weighted by its gradient.

    `R <- R + sum over branches of mean over heads of max(dS/dA * A, 0) R`
    from the identity, layer by layer, with A a branch's attention and S the
    answer's logit; a bridge adds the identity once more.

    Args:
        model, image, text: as `attention_map`. The task must predict logits
            of classes.
        answer: int or, for a task with `answers` or `labels`, one of them.
            By default the class of the highest logit. Of a text with a
            `<mask>`, the token id at the first one.

    Returns:
        `AttentionMap`.

    Raises:
        ValueError: as `attention_map`; a task that predicts no logits, or an
            answer that is not there.

    Example:

    ```python
    seen = relevance(vqa, photo, "what color is the shape?", answer="red")
    seen.whole.argmax()
    ```

    Source: generic attention explainability (Chefer et al., 2021), over both
    modalities joined.
    """
    features = features_of_pair(model, image, text)
    if isinstance(model.output, dict):
        raise ValueError(
            "`model` must predict logits of classes to explain one of them. "
            f"Received: model={type(model).__name__}, which predicts "
            f"{sorted(model.output)}"
        )
    if "mask_positions" in model.input:
        features = _with_mask(model, features)
    tensors = {k: ops.convert_to_tensor(v) for k, v in features.items()}
    maps, logits = _captured(model, tensors)
    index = _index_of(model, logits, answer)
    slopes = _slopes(model, tensors, maps, index)
    weighted = {at: np.maximum(maps[at] * slopes[at], 0) for at in maps}
    joined = [
        _rollout(
            model,
            features,
            {
                name: x
                for (name, visit), x in weighted.items()
                if visit == place
            },
        )
        for place in range(pixels_of(features).shape[1])
    ]
    name = _names_of(model)[index] if _names_of(model) else index
    return made_of(model, features, joined, f"relevance for {name}")


def _captured(model, tensors):
    """The attention maps of a forward pass, and its logits.

    Returns:
        `(maps, logits)`: dict from the name of a layer and the number of its
        visit, one for each picture, to its map, a NumPy array.
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


def _slopes(model, tensors, maps, index):
    """The gradients of one logit with respect to each map, as `maps`."""

    def score(probes):
        added = dict(zip(maps, probes, strict=True))
        add = _by_visit(lambda at, weights: weights + added[at])
        with watch_attention(add):
            logits = model.outputs_of(tensors)
        return ops.reshape(logits, (-1, logits.shape[-1]))[0, index]

    # The gradient of what is added to a map is the map's own.
    with model.inference.reading("relevance"):
        slopes = backend_ops.gradients(
            score, [np.zeros_like(x) for x in maps.values()]
        )
    return dict(zip(maps, slopes, strict=True))


def _by_visit(watch):
    """A watcher that also tells how often a layer was visited before."""
    visits = collections.Counter()

    def watcher(name, weights):
        at = name, visits[name]
        visits[name] += 1
        return watch(at, weights)

    return watcher


def _rollout(model, features, weighted):
    """Relevance of all tokens for what the head reads, over all layers.

    Args:
        model: the task.
        features: dict of arrays, of one text.
        weighted: dict from the name of a layer to its weighted map
            `(1, heads, queries, keys)`.

    Returns:
        array `(T, T + P)`: a row for each token of the text. The first one is
        that of what the head reads.
    """
    fusion = model.backbone.fusion
    sizes = (
        features["token_ids"].shape[1],
        model.backbone.output["image"].shape[1],
    )
    # What the last layer computes, and where the head reads.
    last, read = ((1, 1), [0, sizes[0]])
    if "mask_positions" in model.input:
        last, read = (sizes[0], 0), [int(features["mask_positions"][0, 0])]
    identity = np.eye(sum(sizes))
    found = np.zeros_like(identity)
    for layer, step in enumerate(fusion.steps):
        if fusion.taps[layer] is not None:
            found = found + identity
        queries = last if layer == fusion.num_layers - 1 else sizes
        parts = step.branches(weighted, sizes, queries)
        found = found + sum(p[0].mean(0) for p in parts) @ found
    rows = found[: sizes[0]].copy()
    rows[0] = found[read].mean(0)
    return rows


def _with_mask(model, features):
    """Features with the place of the first masked token."""
    blank = features["token_ids"] == model.preprocessor.tokenizer.mask_token_id
    if not blank.any():
        raise ValueError(
            "`text` must hold a `<mask>`, whose token is explained. "
            "Received: a text without"
        )
    return features | {
        "mask_positions": blank.argmax(1)[:, None].astype("int32")
    }


def _names_of(model):
    """The classes of the task's head, where they have names."""
    (head,) = list(model.head_values.values())[:1]
    return head.get("answers") or head.get("labels") or []


def _index_of(model, logits, answer):
    """The number of an answer; by default the most likely."""
    names, count = _names_of(model), logits.shape[-1]
    if answer is None:
        flat = ops.convert_to_numpy(logits).reshape(-1, count)
        return int(flat[0].argmax())
    if answer in names:
        return names.index(answer)
    # NLVR2's own verb answers True and False, of its two classes.
    if isinstance(answer, (bool, np.bool_)) and count == 2:
        return int(answer)
    if is_integer(answer) and 0 <= answer < count:
        return int(answer)
    allowed = f" or one of {names[:20]}" if names else ""
    raise ValueError(
        f"`answer` must be an int from 0 to {count - 1}{allowed}. "
        f"Received: answer={answer!r}"
    )
