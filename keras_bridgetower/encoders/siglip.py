"""SigLIP (Zhai et al., 2023) and SigLIP 2 (Tschannen et al., 2025)."""

import dataclasses
import math

import keras_hub

from keras_bridgetower.encoders import clip
from keras_bridgetower.encoders import layers
from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.registry import HALF
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

BLOCK = ("self_attn", "layer_norm1", "layer_norm2", "mlp/fc1", "mlp/fc2")
VALUES = {
    "num_attention_heads": Value("num_heads", 12),
    "layer_norm_eps": Value(None, 1e-6, (1e-6,)),
    # KerasHub's "gelu_approximate".
    "hidden_act": Value(None, "gelu_pytorch_tanh", ("gelu_pytorch_tanh",)),
}
# Poolers and heads of other tasks.
HEADS = r"head\..*|classifier\..*"


def siglip(num_layers, patches=layouts.CONV):
    """Return the rules of SigLIP's vision encoder.

    Args:
        num_layers: int, number of blocks.
        patches: `Layout` of the kernel that reads patches.
    """
    path, key = "embedding", "embeddings"
    return [
        *dense(f"{path}/patch_embedding", f"{key}.patch_embedding", patches),
        *same(
            f"{path}/position_embedding/embeddings",
            f"{key}.position_embedding.weight",
        ),
        *norm("post_layer_norm", "post_layernorm"),
        *clip.blocks(num_layers, BLOCK),
    ]


FILES = Files(
    types=("siglip", "siglip_vision_model"),
    rules=lambda sizes: siglip(sizes["num_layers"]),
    sizes=clip.IMAGE_SIZES,
    layers="encoder.layers.",
    values=VALUES,
    prefix="vision_model",
    parts=("vision_config",),
    unread=(r"text_model\..*", clip.HEADS, HEADS),
)


def _square(config, sizes):
    """Return the arguments of a NaFlex encoder for its square of patches."""
    patch = math.isqrt(sizes["patch_values"] // 3)
    side = math.isqrt(sizes["positions"]) * patch
    return {
        "patch_size": patch,
        "image_shape": (side, side, 3),
        "patch_values": None,
        "max_sequence_length": None,
    }


# SigLIP 2 of any aspect ratio (NaFlex) has a dense layer for patches. It is
# equal to SigLIP for square pictures.
NAFLEX = dataclasses.replace(
    FILES,
    types=("siglip2", "siglip2_vision_model"),
    rules=lambda sizes: siglip(sizes["num_layers"], layouts.HEADS_DENSE),
    sizes={
        **clip.IMAGE_SIZES,
        "embeddings.patch_embedding.weight": "hidden_dim patch_values",
    },
    arguments=_square,
)
TEXT_FILES = Files(
    types=("siglip", "siglip_text_model"),
    rules=lambda sizes: clip.text_rules(
        sizes["num_layers"], "post_layer_norm", BLOCK
    ),
    sizes=clip.TEXT_SIZES,
    layers="encoder.layers.",
    values=VALUES,
    prefix="text_model",
    parts=("text_config",),
    unread=(r"vision_model\..*", clip.HEADS, HEADS),
    tokens=Tokens(kind="siglip", adds_start=True, ids=(), positions=64),
)
TEXT_FILES_2 = dataclasses.replace(
    TEXT_FILES,
    types=("siglip2", "siglip2_text_model"),
    tokens=dataclasses.replace(TEXT_FILES.tokens, kind="gemma"),
)


@register_encoder(
    keras_hub.models.SigLIPVisionEncoder,
    "image",
    summary="mean",
    name="SigLIP, SigLIP 2",
    prefix_tokens=lambda encoder: 0,
    files=(FILES, NAFLEX),
    unused=("head",),
    # SigLIP 2's files have bilinear, but the encoders cannot be distinguished.
    pixels=HALF,
)
def states(encoder):
    x = layers.Patches(encoder.embedding, name="patches")(encoder.inputs[0])
    return layers.run_blocks(x, encoder.encoder_layers, encoder.post_layer_norm)


@register_encoder(
    keras_hub.models.SigLIPTextEncoder,
    "text",
    name="SigLIP, SigLIP 2",
    prefix_tokens=lambda encoder: 0,
    # Its own head reads the last token, even if it is padding.
    summary="last",
    fixed_length=True,
    files=(TEXT_FILES, TEXT_FILES_2),
    unused=("head",),
)
def text_states(encoder):
    # The first id is a start token, which this encoder was trained without.
    ids = encoder.input["token_ids"][:, 1:]
    table = encoder.embedding.token_embedding
    positions = encoder.embedding.position_embedding
    x = layers.TokenLookup(table, name="token_lookup")(ids)
    x = layers.AllPositions(positions, name="positions")(x)
    return layers.run_blocks(x, encoder.encoder_layers, encoder.post_layer_norm)
