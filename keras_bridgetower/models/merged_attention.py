"""Merged attention, the table of cross-modal steps, and attention maps.

A cross-modal step is a layer that takes the tokens of both modalities and
returns both. `CROSS_ENCODERS` names the steps that `cross_encoder` can choose.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.co_attention import CoAttention
from keras_bridgetower.models.co_attention import over_queries
from keras_bridgetower.models.post_norm import PostNormLayer


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MergedAttention(PostNormLayer):
    """A cross-modal step: one transformer block over both modalities joined.

    `h = LN(q + SelfAttn(q, all)); out = LN(h + FFN(h))`, where `all` are the
    tokens of the text followed by those of the image. Both modalities share
    the weights.

    Args:
        hidden_dim, num_heads, intermediate_dim, dropout, epsilon,
            attention_dropout: as `CrossModalLayer`.

    Call arguments:
        text_query, image_query, text, image, padding_mask: as `CoAttention`.

    Returns:
        `(text, image)`, each with as many tokens as its query, or None.

    Example:

    ```python
    step = MergedAttention(16, num_heads=2, intermediate_dim=32)
    text, image = np.ones((1, 4, 16)), np.ones((1, 9, 16))
    text, image = step(text, image, text, image)
    ```

    Source: METER (CVPR 2022), merged attention.
    """

    attention_branches = ("attention",)
    # No layer computes image tokens only.
    image_only = ()

    def build(
        self,
        text_query_shape,
        image_query_shape,
        text_shape,
        image_shape,
        padding_mask_shape=None,
    ):
        shape = (text_shape[0], None, self.hidden_dim)
        self.build_branches(shape, shape)

    def call(
        self,
        text_query,
        image_query,
        text,
        image,
        padding_mask=None,
        training=None,
    ):
        joined = ops.concatenate([text, image], axis=1)
        asked = [q for q in (text_query, image_query) if q is not None]
        query = ops.concatenate(asked, axis=1)
        mask = None
        if padding_mask is not None:
            padding_mask = ops.cast(padding_mask, "int32")
            mask = ops.concatenate(
                [padding_mask, ops.ones_like(image[..., 0], "int32")], axis=1
            )
        mask = over_queries(mask)
        x = self.attend("attention", query, joined, mask, training)
        x = self.feed_forward(x, training)
        if text_query is None:
            return None, x
        if image_query is None:
            return x, None
        first = text_query.shape[1]
        first = ops.shape(text_query)[1] if first is None else first
        return x[:, :first], x[:, first:]

    def branches(self, captured, tokens, queries=None):
        """As `CoAttention.branches`, but with a single branch."""
        part = ops.convert_to_numpy(captured[f"{self.name}_attention"])
        joint = np.zeros((*part.shape[:2], sum(tokens), sum(tokens)), "float32")
        text, image = queries or tokens
        joint[..., :text, :] = part[..., :text, :]
        joint[..., tokens[0] : tokens[0] + image, :] = part[..., text:, :]
        return [joint]


CROSS_ENCODERS = {
    "co_attention": CoAttention,
    "merged_attention": MergedAttention,
}


def maps_of_steps(steps, run, text_tokens):
    """Attention maps of all cross-modal steps, from one eager call.

    Args:
        steps: list of the steps, lowest first.
        run: callable without arguments that calls them and returns a dict
            with the `"image"` output `(batch, P, D)`.
        text_tokens: int, T.

    Returns:
        dict from the names of `attention_blocks` to lists of one map per step.
    """
    with backend_ops.inference_scope(), capture_attention() as captured:
        outputs = run()
    tokens = [text_tokens, outputs["image"].shape[1]]
    layers = [
        attention_blocks(step.branches(captured, tokens), text_tokens)
        for step in steps
    ]
    return {name: [maps[name] for maps in layers] for name in layers[0]}


def attention_blocks(branches, text_tokens):
    """The four attention maps of a step, from the result of its `branches`.

    Args:
        branches: list of float arrays `(batch, heads, T + P, T + P)`.
        text_tokens: int, T.

    Returns:
        dict of float arrays `(batch, heads, queries, keys)`: `"text_self"`,
        `"text_cross"`, `"image_self"`, `"image_cross"`. Every row sums to 1
        over the keys of its block. For merged attention this means: the
        share of each token among the tokens of one modality, whatever the
        share of the whole modality.
    """
    total = sum(branches)
    text, image = slice(0, text_tokens), slice(text_tokens, None)
    blocks = {
        "text_self": total[..., text, text],
        "text_cross": total[..., text, image],
        "image_self": total[..., image, image],
        "image_cross": total[..., image, text],
    }
    tiny = np.finfo("float32").tiny
    return {
        name: block / np.maximum(block.sum(-1, keepdims=True), tiny)
        for name, block in blocks.items()
    }
