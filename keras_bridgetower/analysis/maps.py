"""Where a task looks: maps from words to patches."""

import dataclasses

import numpy as np

from keras_bridgetower.analysis.attention_records import branches
from keras_bridgetower.analysis.attention_records import check_cross_modal
from keras_bridgetower.analysis.attention_records import check_index
from keras_bridgetower.analysis.attention_records import features_of
from keras_bridgetower.analysis.attention_records import pixels_of
from keras_bridgetower.analysis.attention_records import tokens_of
from keras_bridgetower.models.merged_attention import attention_blocks


@dataclasses.dataclass(frozen=True, repr=False)
class AttentionMap:
    """Where the words of a text, and the text as a whole, look.

    Args:
        words: list of str, the text's tokens without the special ones.
        word_weights: float array `(words,)`, how much each counts for the
            text as a whole; sums to 1.
        word_maps: float array `(words, pictures, rows, columns)`, over the
            patches of each picture; each map sums to 1.
        whole: float array `(pictures, rows, columns)`, of the token that the
            task's head reads; each map sums to 1.
        pictures: float array `(pictures, S, S, 3)` in 0..1, as the model saw
            them.
        title: str, what was asked for.
    """

    words: list
    word_weights: np.ndarray
    word_maps: np.ndarray
    whole: np.ndarray
    pictures: np.ndarray
    title: str

    def __repr__(self):
        pictures, rows, columns = self.whole.shape
        return (
            f"<AttentionMap {self.title!r}: {len(self.words)} words, "
            f"{pictures} x {rows} x {columns} patches>"
        )


def attention_map(model, image, text, layer=-1, head=None):
    """Attention of one layer from words to patches.

    Args:
        model: a task that reads pictures and texts, with a preprocessor.
        image: one picture, in any form that the task reads; a pair of them
            for NLVR2.
        text: str.
        layer: int, cross-modal layer, lowest first; negative from the top.
        head: int, one head; None for the mean over the heads.

    Returns:
        `AttentionMap`, by cross-attention; weights of words by
        self-attention of the first token.

    Raises:
        ValueError: a task of one tower or without preprocessor, a layer or a
            head that is not there.

    Example:

    ```python
    seen = attention_map(vqa, photo, "what color is the shape?", layer=0)
    seen.whole.shape  # (1, 8, 8)
    ```
    """
    features = features_of_pair(model, image, text)
    fusion = model.backbone.fusion
    check_index("layer", layer, fusion.num_layers)
    if head is not None:
        check_index("head", head, fusion.num_heads)
    tokens = features["token_ids"].shape[1]
    joined = []
    for layers in branches(model, features):
        blocks = attention_blocks(layers[layer], tokens)
        rows = [blocks["text_self"][0], blocks["text_cross"][0]]
        rows = np.concatenate(rows, axis=-1)
        joined.append(rows.mean(0) if head is None else rows[head])
    shown = "mean of heads" if head is None else f"head {head}"
    return made_of(
        model, features, joined, f"attention, layer {layer}, {shown}"
    )


def attention_rollout(model, image, text):
    """Attention through all cross-modal layers.

    In every layer each residual branch counts half of the sum that it joins,
    `M <- (M + A) / 2` from the identity, A the mean of the heads over both
    modalities joined; the layers' matrices are multiplied. A bridge counts
    half as well: `R <- (R + I) / 2`, as a uni-modal state is that of its own
    token.

    Args:
        model, image, text: as `attention_map`.

    Returns:
        `AttentionMap`.

    Raises:
        ValueError: as `attention_map`.

    Example:

    ```python
    seen = attention_rollout(vqa, photo, "what color is the shape?")
    seen.words[seen.word_weights.argmax()]
    ```

    Source: attention rollout (Abnar and Zuidema, 2020).
    """
    features = features_of_pair(model, image, text)
    taps = model.backbone.fusion.taps
    joined = []
    for layers in branches(model, features):
        identity = np.eye(layers[0][0].shape[-1])
        rolled = identity
        for layer, tap in zip(layers, taps, strict=True):
            # Into the lowest layer this changes nothing.
            if tap is not None:
                rolled = (rolled + identity) / 2
            mixed = identity
            for branch in layer:
                mixed = (mixed + branch[0].mean(0)) / 2
            rolled = mixed @ rolled
        joined.append(rolled)
    return made_of(model, features, joined, "attention rollout")


def features_of_pair(model, image, text):
    """Features of one picture, or pair of them, and a text, as arrays."""
    check_cross_modal(model)
    model.needed_preprocessor()
    return {
        name: np.asarray(x)
        for name, x in features_of(
            model, {"images": [image], "text": [text]}
        ).items()
    }


def made_of(model, features, joined, title):
    """The result, of one joined matrix for each picture."""
    tokenizer = model.preprocessor.tokenizer
    ids = features["token_ids"][0]
    # Between the token at the start and that at the end.
    kept = np.flatnonzero(features["padding_mask"][0])[1:-1]
    prefix, side = tokens_of(model)
    first = len(ids) + prefix
    maps = np.stack([rows[: len(ids), first:] for rows in joined], axis=1)
    maps = _normal(maps).reshape(*maps.shape[:2], side, side)
    weights = np.mean([rows[0, kept] for rows in joined], axis=0)
    converter = model.preprocessor.image_converter
    pictures = pixels_of(features)[0] * np.array(converter.std)
    pictures = pictures + np.array(converter.mean)
    return AttentionMap(
        words=[_word(tokenizer, int(id)) for id in ids[kept]],
        word_weights=_normal(weights),
        word_maps=maps[kept],
        whole=maps[0],
        pictures=np.clip(pictures, 0, 1),
        title=title,
    )


def _word(tokenizer, id):
    """A token as it is written; special ones by name."""
    return tokenizer.detokenize([id]).strip() or tokenizer.id_to_token(id)


def _normal(rows):
    """Rows that sum to 1; even where nothing speaks for anything."""
    total = rows.sum(-1, keepdims=True)
    even = np.full_like(rows, 1 / rows.shape[-1])
    return np.where(total > 0, rows / np.where(total > 0, total, 1), even)
