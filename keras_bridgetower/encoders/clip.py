"""CLIP (Radford et al., 2021) and MetaCLIP 2 (Chuang et al., 2025)."""

import dataclasses
import functools

import keras_hub
import numpy as np

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.layers import run_blocks
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.roberta import PIECES
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import layers
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

# Width of one attention head of CLIP.
HEAD_WIDTH = 64
# Names of the embeddings of CLIP's image encoder, in OpenAI's files and in
# those of transformers' BridgeTower and CLIP.
OPENAI_EMBEDDINGS = ("class_embedding", "conv1.weight", "positional_embedding")
BRIDGETOWER_EMBEDDINGS = (
    "embeddings.class_embedding",
    "embeddings.patch_embedding.weight",
    "embeddings.position_embedding.weight",
)


def _clip_embeddings(prefix, keys):
    token, patches, positions = (f"{prefix}{key}" for key in keys)
    return [
        *same("embedding/class_embedding", token),
        *same("embedding/patch_embedding/kernel", patches, layouts.CONV),
        *same("embedding/position_embedding/embeddings", positions),
    ]


def openai_clip(prefix, num_layers, embeddings=OPENAI_EMBEDDINGS):
    """Return the rules of CLIP's vision encoder, with OpenAI's names."""
    return [
        *_clip_embeddings(prefix, embeddings),
        *norm("pre_layer_norm", f"{prefix}ln_pre"),
        *layers(
            num_layers,
            "encoder_block_",
            f"{prefix}transformer.resblocks.",
            (_joint_attention, "attention/", "attn."),
            (norm, "layer_norm_1", "ln_1"),
            (norm, "layer_norm_2", "ln_2"),
            (dense, "dense_1", "mlp.c_fc"),
            (dense, "dense_2", "mlp.c_proj"),
        ),
    ]


def _joint_attention(path, key):
    """Return the rules of attention with query, key and value in one tensor."""
    parts = [f"{path}{part}" for part in ("query", "key", "value")]
    kernels, biases = (
        tuple(f"{part}/{kind}" for part in parts) for kind in ("kernel", "bias")
    )
    return [
        Rule(kernels, (f"{key}in_proj_weight",), layouts.SPLIT_DENSE),
        Rule(biases, (f"{key}in_proj_bias",), layouts.SPLIT_BIAS),
        *dense(
            f"{path}attention_output", f"{key}out_proj", layouts.HEADS_DENSE
        ),
    ]


def final_norm(prefix):
    """Return the rules of the final norm of a CLIP vision encoder."""
    return norm("layer_norm", f"{prefix}ln_post")


def tap_norms(prefix, num_layers, taps):
    """Return the rules of the norms after taps, one for each tap."""
    return [
        rule
        for index, tap in enumerate(t for t in taps if t is not None)
        for rule in norm(
            f"tap_{index}_norm", f"{prefix}ln_separate.{num_layers + tap}"
        )
    ]


def clip(sizes):
    """Return the rules of CLIP's vision encoder, with transformers' names."""
    rules = _clip_embeddings("", BRIDGETOWER_EMBEDDINGS)
    # transformers misspells `pre_layrnorm`.
    rules += norm("pre_layer_norm", "pre_layrnorm")
    rules += norm("layer_norm", "post_layernorm")
    return rules + blocks(sizes["num_layers"])


# Layers of a block of CLIP and of MetaCLIP 2: attention, norms, dense layers.
BLOCK = ("attention", "layer_norm_1", "layer_norm_2", "dense_1", "dense_2")


def blocks(num_layers, names=BLOCK):
    """Return the rules of the blocks of CLIP and of its successors.

    `names` are those of KerasHub's layers, in the order of `BLOCK`.
    """
    projections = functools.partial(
        attention, parts=("q_proj", "k_proj", "v_proj"), output="out_proj"
    )
    kinds = (projections, norm, norm, dense, dense)
    keys = ("self_attn", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
    parts = zip(kinds, names, keys, strict=True)
    return layers(num_layers, "encoder_block_", "encoder.layers.", *parts)


def text_rules(num_layers, final_norm="layer_norm", names=BLOCK):
    """Return the rules of the text encoder of CLIP and of its successors.

    `final_norm` and `names` are KerasHub's names of layers.
    """
    rules = norm(final_norm, "final_layer_norm") + blocks(num_layers, names)
    for kind in ("token", "position"):
        rules += same(
            f"embedding/{kind}_embedding/embeddings",
            f"embeddings.{kind}_embedding.weight",
        )
    return rules


IMAGE_SIZES = {
    "embeddings.patch_embedding.weight": "hidden_dim _ patch_size _",
    "embeddings.position_embedding.weight": "positions _",
    "encoder.layers.0.mlp.fc1.weight": "intermediate_dim _",
}
TEXT_SIZES = {
    "embeddings.token_embedding.weight": "vocabulary_size embedding_dim",
    "embeddings.position_embedding.weight": "positions _",
    "encoder.layers.0.mlp.fc1.weight": "intermediate_dim hidden_dim",
}


def values(num_heads):
    """Return the values of CLIP's configurations.

    `num_heads` is the number of attention heads if a file omits it.
    """
    return {
        "num_attention_heads": Value("num_heads", num_heads),
        "layer_norm_eps": Value(None, 1e-5, (1e-5,)),
        "hidden_act": Value(
            "intermediate_activation", "quick_gelu", ("quick_gelu", "gelu")
        ),
    }


# CLIP's mean and deviation are those of the converter.
PIXELS = {"mode": "center"}
# Tensors of a model of both encoders that belong to neither.
HEADS = r"(text|visual)_projection\.weight|logit_(scale|bias)"
FILES = Files(
    types=("clip", "clip_vision_model"),
    rules=clip,
    sizes=IMAGE_SIZES,
    layers="encoder.layers.",
    values=values(12),
    prefix="vision_model",
    # As in transformers, the older name wins.
    parts=("vision_config_dict", "vision_config"),
    before=lambda config: 1,
    unread=(r"text_model\..*", HEADS),
)
TEXT_FILES = Files(
    types=("clip", "clip_text_model"),
    rules=lambda sizes: text_rules(sizes["num_layers"]),
    sizes=TEXT_SIZES,
    layers="encoder.layers.",
    values=values(8),
    prefix="text_model",
    parts=("text_config_dict", "text_config"),
    unread=(r"vision_model\..*", HEADS),
    # The ids of special tokens differ between files.
    tokens=Tokens(kind="clip", ids=(), positions=77),
)


def heads_for_width(width):
    """Return the attention heads of CLIP and of the published BridgeTower."""
    return max(width // HEAD_WIDTH, 1)


# A state dict of OpenAI, which has no configuration. The names of CLIP's text
# side are those of the image side without `visual.`.
OPENAI = Files(
    mark="visual.conv1.weight",
    rules=lambda sizes: (
        openai_clip("visual.", sizes["num_layers"]) + final_norm("visual.")
    ),
    sizes={
        "visual.conv1.weight": "hidden_dim _ patch_size _",
        "visual.positional_embedding": "positions _",
        "visual.transformer.resblocks.0.mlp.c_fc.weight": "intermediate_dim _",
    },
    layers="visual.transformer.resblocks.",
    arguments=lambda config, sizes: {
        "num_heads": heads_for_width(sizes["hidden_dim"])
    },
    before=lambda config: 1,
    unread=(
        r"logit_scale|text_projection|positional_embedding|visual\.proj",
        r"token_embedding\.weight|ln_final\..*|transformer\.resblocks\..*",
        r"input_resolution|context_length|vocab_size",
    ),
)


def _number_positions(encoder):
    """Set the position ids 0, 1, 2, ...; those of a new encoder are all 0."""
    ids = encoder.embedding.position_ids
    ids.assign(np.arange(ids.shape[1])[None])


@register_encoder(
    keras_hub.models.CLIPVisionEncoder,
    "image",
    name="CLIP",
    correct=_number_positions,
    files=(FILES, OPENAI),
    pixels=PIXELS,
)
def states(encoder):
    return [encoder.layer_norm(b.output) for b in encoder.encoder_layers]


def _usual_epsilon(encoder):
    """Set the epsilon of CLIP's training, ten times that of KerasHub."""
    encoder.layer_norm.epsilon = 1e-5


@register_encoder(
    keras_hub.models.CLIPTextEncoder,
    "text",
    name="CLIP",
    # A causal start token is the same in every text.
    summary="end",
    correct=_usual_epsilon,
    files=(TEXT_FILES,),
)
def text_states(encoder):
    tokens = token_embeddings(encoder, encoder.embedding.token_embedding)
    x = tokens + encoder.embedding.position_embedding(tokens)
    return run_blocks(x, encoder.encoder_layers, encoder.layer_norm)


METACLIP_2 = dataclasses.replace(
    FILES,
    types=("metaclip_2", "metaclip_2_vision_model"),
    # Without the final norm.
    rules=lambda sizes: [x for x in clip(sizes) if "post_" not in x.keys[0]],
    unread=(*FILES.unread, r"post_layernorm\..*|classifier\..*"),
)
METACLIP_2_TEXT = dataclasses.replace(
    TEXT_FILES,
    types=("metaclip_2", "metaclip_2_text_model"),
    tokens=dataclasses.replace(PIECES, ids=("eos_token_id",), positions=77),
)


@register_encoder(
    keras_hub.models.MetaCLIP2VisionEncoder,
    "image",
    name="MetaCLIP 2",
    files=(METACLIP_2,),
    # The image processor of `transformers` for it is CLIP's.
    pixels=PIXELS,
)
def metaclip_states(encoder):
    # The norm of the pooled class token is a layer of MetaCLIP2Backbone, not
    # of the encoder. So these states have no final norm.
    return [block.output for block in encoder.encoder_layers]


register_encoder(
    keras_hub.models.MetaCLIP2TextEncoder,
    "text",
    name="MetaCLIP 2",
    summary="end",
    files=(METACLIP_2_TEXT,),
)(text_states)
