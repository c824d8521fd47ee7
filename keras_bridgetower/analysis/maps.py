"""Maps from words of a text to patches of a picture: attention, relevance."""

import dataclasses

import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import is_integer
from keras_bridgetower.models.attention import attention_blocks
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.attention import watch_attention
from keras_bridgetower.models.fusion import IMAGE_ROW


@dataclasses.dataclass(frozen=True)
class AttentionMap:
    """Weights over the patches of a picture, for words and for a whole text.

    Args:
        words: list of str, the tokens of the text without special tokens.
        word_weights: float array `(words,)`, the weight of each word for the
            whole text; sums to 1.
        word_maps: float array `(words, pictures, rows, columns)`, for each
            word the weights of the patches of each picture; a map sums to 1.
        whole: float array `(pictures, rows, columns)`, the map of the text's
            first token, or, from `relevance`, of the tokens that the task's
            head reads, such as the first `<mask>`; a map sums to 1.
        pictures: float array `(pictures, S, S, 3)` in 0..1, the pictures
            after preprocessing.
        title: str, the method.
    """

    words: list
    word_weights: np.ndarray = dataclasses.field(repr=False)
    word_maps: np.ndarray = dataclasses.field(repr=False)
    whole: np.ndarray = dataclasses.field(repr=False)
    pictures: np.ndarray = dataclasses.field(repr=False)
    title: str


def attention_map(model, image, text, layer=-1, head=None):
    """Compute the attention of one layer from words to patches.

    Args:
        model: a task that reads pictures and texts, with a preprocessor.
        image: one picture in any form that the task reads, or a pair of
            pictures for NLVR2.
        text: str.
        layer: int, index of a cross-modal layer, lowest first; negative
            indices count from the top.
        head: int, index of one head, or None for the mean over the heads.

    Returns:
        `AttentionMap`. The maps are cross-attention, the weights of words are
        the self-attention of the first token.

    Raises:
        ValueError: a task of one tower, or without preprocessor.
        IndexError: an index out of range.

    Example:

    ```python
    seen = attention_map(vqa, photo, "what color is the shape?", layer=0)
    seen.whole.shape  # (1, 8, 8)
    ```
    """
    features = pair_features(model, image, text)
    tokens = features["token_ids"].shape[1]
    joined = []
    for layers in attention_branches(model, features):
        blocks = attention_blocks(layers[layer], tokens)
        rows = [blocks["text_self"][0], blocks["text_cross"][0]]
        rows = np.concatenate(rows, axis=-1)
        joined.append(rows.mean(0) if head is None else rows[head])
    heads = "mean of heads" if head is None else f"head {head}"
    title = f"attention, layer {layer}, {heads}"
    return make_map(model, features, joined, title)


def attention_rollout(model, image, text):
    """Compute attention rollout: attention through all cross-modal layers.

    The attention A of a residual branch is the mean over its heads, as a
    matrix over the tokens of both modalities. Branch and residual connection
    have equal shares: starting from the identity, each branch of a layer
    gives `M <- (M + A) / 2`. The matrices of the layers are multiplied. A
    bridge or manager adds the uni-modal states of each token with an equal
    share, too: `R <- (R + I) / 2`.

    Args:
        model, image, text: as in `attention_map`.

    Returns:
        `AttentionMap`.

    Raises:
        ValueError: as in `attention_map`.

    Example:

    ```python
    seen = attention_rollout(vqa, photo, "what color is the shape?")
    seen.words[seen.word_weights.argmax()]
    ```

    Source: attention rollout (Abnar and Zuidema, 2020).
    """
    features = pair_features(model, image, text)
    fusion = model.backbone.fusion
    joined = []
    for layers in attention_branches(model, features):
        identity = np.eye(layers[0][0].shape[-1])
        rolled = identity
        for number, layer in enumerate(layers):
            # No change in the lowest layer, where `rolled` is the identity.
            if number in fusion.tapped_layers:
                rolled = (rolled + identity) / 2
            mixed = identity
            for branch in layer:
                mixed = (mixed + branch[0].mean(0)) / 2
            rolled = mixed @ rolled
        joined.append(rolled)
    return make_map(model, features, joined, "attention rollout")


def pair_features(model, image, text):
    """Return the features of a text and its picture or pair, as arrays."""
    model.needed_preprocessor()
    merged = model.backbone.fusion.image_tokens
    if merged is not None:
        raise ValueError(
            "`model` must not merge tokens of pictures, for maps over their "
            f"patches. Received: image_tokens={merged}"
        )
    features = inference_features(model, {"images": [image], "text": [text]})
    return {name: np.asarray(x) for name, x in features.items()}


def inference_features(model, x):
    """Return features of raw inputs, without random draws and masking.

    Args:
        model: a task.
        x: dict of raw `"images"` and `"text"`, or of features if the task has
            no preprocessor.

    Returns:
        dict of arrays with a batch axis. For tasks that fill masks, `<mask>`
        in a text becomes the mask token.
    """
    if not {"images", "token_ids"} <= set(model.input):
        raise ValueError(
            "`model` must read pictures and texts, for cross-modal attention. "
            f"Received: model={type(model).__name__}"
        )
    preprocessor = model.preprocessor
    if preprocessor is None:
        return x
    encode = preprocessor.tokenizer.encode
    if "mask_positions" in model.input:
        encode = preprocessor.tokenizer.encode_with_masks
    return preprocessor.features_of(x, encode)[0]


def pixels(features):
    """Return pixels `(batch, pictures, S, S, 3)`, 1 or 2 pictures per text."""
    images = np.asarray(features["images"])
    return images if images.ndim == 5 else images[:, None]


def attention_branches(model, features):
    """Yield attention maps over the tokens of both modalities, text first.

    The last layer is computed for all tokens, even if the task's head does
    not read them.

    Args:
        model: a task.
        features: dict of arrays with a batch axis.

    Yields:
        For the first picture of each text, and then for the second one, if
        any: a list with one entry for each cross-modal layer, lowest first.
        An entry is the result of the layer's `branches`: float arrays
        `(batch, heads, T + P, T + P)`.
    """
    backbone = model.backbone
    fusion = backbone.fusion
    tensors = {
        name: ops.convert_to_tensor(np.asarray(x))
        for name, x in features.items()
        if name in backbone.input and name != "images"
    }
    pictures = pixels(features)
    for number in range(pictures.shape[1]):
        with (
            model.inference.read_lock("attention maps"),
            backend_ops.inference_scope(),
            capture_attention() as captured,
        ):
            image = ops.convert_to_tensor(pictures[:, number])
            outputs = fusion(
                backbone.text_tower(tensors),
                backbone.image_tower(image),
                padding_mask=tensors["padding_mask"],
                image_row=IMAGE_ROW + number,
                training=False,
            )
        sizes = tuple(outputs[name].shape[1] for name in ("text", "image"))
        yield [step.branches(captured, sizes) for step in fusion.steps]


def make_map(model, features, joined, title):
    """Make an `AttentionMap` from one matrix over all tokens per picture."""
    tokenizer = model.preprocessor.tokenizer
    ids = features["token_ids"][0]
    # Without the start and end tokens.
    kept = np.flatnonzero(features["padding_mask"][0])[1:-1]
    prefix = model.backbone.image_tower.prefix_tokens
    side = int(np.sqrt(model.backbone.output["image"].shape[1] - prefix))
    # After the text and the prefix tokens of the image.
    first = len(ids) + prefix
    maps = np.stack([rows[: len(ids), first:] for rows in joined], axis=1)
    maps = _normalize(maps).reshape(*maps.shape[:2], side, side)
    weights = np.mean([rows[0, kept] for rows in joined], axis=0)
    converter = model.preprocessor.image_converter
    pictures = pixels(features)[0] * np.array(converter.std)
    pictures = pictures + np.array(converter.mean)
    return AttentionMap(
        words=[_word(tokenizer, int(id)) for id in ids[kept]],
        word_weights=_normalize(weights),
        word_maps=maps[kept],
        whole=maps[0],
        pictures=np.clip(pictures, 0, 1),
        title=title,
    )


def _word(tokenizer, id):
    """Return the text of a token, or the name of a special token."""
    return tokenizer.detokenize([id]).strip() or tokenizer.id_to_token(id)


def _normalize(rows):
    """Scale rows to sum to 1; rows of zeros become uniform."""
    total = rows.sum(-1, keepdims=True)
    # A text may have no word.
    even = np.full_like(rows, 1 / max(1, rows.shape[-1]))
    return np.where(total > 0, rows / np.where(total > 0, total, 1), even)


def relevance(model, image, text, answer=None):
    """Explain one answer by attention weighted by its gradient.

    `R <- R + sum over branches of mean over heads of max(dS/dA * A, 0) R`
    from the identity, layer by layer, with A a branch's attention and S the
    answer's logit; a bridge or manager adds the identity once more.

    Args:
        model, image, text: as `attention_map`. The task must predict logits
            of classes.
        answer: int or, for a task whose classes have names, one of them.
            By default the class of the highest logit. For a text with a
            `<mask>`, the token id at the first one.

    Returns:
        `AttentionMap`.

    Raises:
        ValueError: as `attention_map`, a task that predicts no logits of
            classes, or an unknown answer.

    Example:

    ```python
    seen = relevance(vqa, photo, "what color is the shape?", answer="red")
    seen.whole.argmax()
    ```

    Source: generic attention explainability (Chefer et al., 2021), over both
    modalities joined.
    """
    features = pair_features(model, image, text)
    if isinstance(model.output, dict):
        raise ValueError(
            "`model` must predict logits of classes. Received: "
            f"model={type(model).__name__}, which predicts {[*model.output]}"
        )
    if "mask_positions" in model.input:
        features = _with_mask(model, features)
    tensors = {k: ops.convert_to_tensor(v) for k, v in features.items()}
    layers, maps = [], []

    def keep(name, weights):
        layers.append(name)
        maps.append(ops.convert_to_numpy(weights))
        return weights

    with (
        model.inference.read_lock("relevance"),
        backend_ops.inference_scope(),
        watch_attention(keep),
    ):
        model.new_heads.check("relevance", model.answering_heads)
        logits = model.outputs_of(tensors)
    names = model.class_names or []
    index = _class_index(names, logits, answer)

    def score(probes):
        added = iter(probes)
        # The gradient of a term added to a map is that of the map.
        with watch_attention(lambda name, weights: weights + next(added)):
            logits = model.outputs_of(tensors)
        return ops.reshape(logits, (-1, logits.shape[-1]))[0, index]

    with model.inference.read_lock("relevance"):
        zeros = [np.zeros_like(x) for x in maps]
        gradients = backend_ops.gradients(score, zeros)
    # A layer runs once for each picture.
    by_picture = [{} for _ in range(pixels(features).shape[1])]
    for layer, x, gradient in zip(layers, maps, gradients, strict=True):
        weighted = next(found for found in by_picture if layer not in found)
        weighted[layer] = np.maximum(x * gradient, 0)
    joined = [_relevances(model, features, x) for x in by_picture]
    name = names[index] if names else index
    return make_map(model, features, joined, f"relevance for {name}")


def _relevances(model, features, weighted):
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
        if layer in fusion.tapped_layers:
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
