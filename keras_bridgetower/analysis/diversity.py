"""Head diversity: the divergence between heads of a cross-modal layer."""

import dataclasses

import keras
import numpy as np

from keras_bridgetower.analysis.maps import attention_branches
from keras_bridgetower.analysis.maps import inference_features
from keras_bridgetower.models.attention import attention_blocks

KINDS = ("image_self", "text_self", "image_cross", "text_cross")
# Minimum probability: masked keys have 0.
FLOOR = 1e-12


@dataclasses.dataclass(frozen=True)
class HeadDiversity:
    """Divergence between the heads of each cross-modal layer.

    Args:
        mean: dict from `"image_self"`, `"text_self"`, `"image_cross"` and
            `"text_cross"` to a float array `(layers,)`, in nats.
        spread: dict with the same keys: standard deviation over the samples.
        samples: int, number of picture-text pairs.
    """

    mean: dict
    spread: dict
    samples: int


def head_divergence(maps, queries=None):
    """Compute the Kullback-Leibler divergence between heads, per sample.

    `D = mean over h != g, over i of sum_j p[h,i,j] log(p[h,i,j] / p[g,i,j])`,
    with heads h and g, queries i and keys j. Both directions of each pair of
    heads count. Probabilities below 1e-12 are set to 1e-12.

    Args:
        maps: float array `(batch, heads, queries, keys)`, rows sum to 1.
        queries: optional array `(batch, queries)`, 1 at tokens and 0 at
            ignored padding.

    Returns:
        float64 array `(batch,)`, in nats.

    Raises:
        ValueError: fewer than two heads.

    Example:

    ```python
    maps = np.array([[[[0.5, 0.5]], [[0.9, 0.1]]]])  # Two heads, one query.
    head_divergence(maps)  # [0.4394]
    ```
    """
    heads = maps.shape[1]
    if heads < 2:
        raise ValueError(
            f"`maps` must have two heads or more. Received: {heads} heads"
        )
    p = maps.astype("float64")
    log = np.log(np.maximum(p, FLOOR))
    # Row h, column g: sum_j p_h log p_g.
    cross = np.einsum("bhqk,bgqk->bqhg", p, log)
    own = np.einsum("bqhh->bqh", cross)
    by_query = own.sum(-1) * heads - cross.sum((-1, -2))
    by_query /= heads * (heads - 1)
    weights = np.ones(by_query.shape) if queries is None else queries
    return np.average(by_query, axis=-1, weights=weights)


def head_diversity(model, dataset):
    """Measure the divergence between heads of every cross-modal layer.

    `head_divergence` compares the attention of two heads, for each layer and
    for self- and cross-attention of both modalities. It is averaged over
    pairs of heads, over tokens without padding, and over the samples. Only
    one batch is in memory at a time.

    Args:
        model: a task that reads pictures and texts.
        dataset: iterable of batches, such as a `tf.data.Dataset`. A batch is
            a dict of raw `"images"` and `"text"`, or `(x, y)`, or
            `(x, y, weight)`. A task without preprocessor takes dicts of
            features.

    Returns:
        `HeadDiversity`. Each picture of a pair counts as a sample.

    Raises:
        ValueError: layers with a single head.

    Example:

    ```python
    found = head_diversity(vqa, [{"images": [photo], "text": ["a shape"]}])
    found.mean["text_cross"]  # One number for each layer.
    ```

    Source: BridgeTower (AAAI 2023), visualization of attention heads.
    """
    totals, count = 0.0, 0
    for batch in dataset:
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
        features = inference_features(model, x)
        text = np.asarray(features["padding_mask"])
        for layers in attention_branches(model, features):
            values = np.array([_divergences(x, text) for x in layers])
            # Sums over the samples of divergences and of their squares.
            totals = totals + np.stack([values.sum(-1), (values**2).sum(-1)])
            count += values.shape[-1]
    mean, squares = totals / count
    spread = np.sqrt(np.maximum(squares - mean**2, 0))
    return HeadDiversity(
        *(dict(zip(KINDS, x.T, strict=True)) for x in (mean, spread)), count
    )


def _divergences(layer, text):
    """Return divergences `(kinds, batch)` of a layer, ordered as `KINDS`."""
    blocks = attention_blocks(layer, text.shape[1])
    queries = {"text": text, "image": None}
    return [
        head_divergence(blocks[kind], queries[kind.split("_")[0]])
        for kind in KINDS
    ]
