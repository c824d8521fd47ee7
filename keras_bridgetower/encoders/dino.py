"""DINOv2 (Oquab et al., 2024), also with registers, and DINOv3 (Siméoni, 2025).

The mask token of their pre-training is not read from `transformers`, since
towers hide no patches; in a preset of KerasHub it is frozen.
In training, `transformers` shifts and scales the coordinates of DINOv3's
patches at random; KerasHub's encoder does not.
"""

import functools

import keras_hub

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.layers import run_blocks
from keras_bridgetower.encoders.registry import IMAGENET
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.encoders.rules import layers
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

# KerasHub adds only the first table to the patches, but saves both.
TABLES = (
    "embeddings/interpolated_position_embeddings",
    "embeddings/position_embeddings",
)
# Parts of each layer of both encoders.
LAYER = (
    (norm, "norm1", "norm1"),
    (norm, "norm2", "norm2"),
    (same, "layer_scale1/lambda1", "layer_scale1.lambda1"),
    (same, "layer_scale2/lambda1", "layer_scale2.lambda1"),
)


def dinov2(values):
    """Return the rules of KerasHub's DINOv2, with transformers' names."""
    parts = ("attention.query", "attention.key", "attention.value")
    heads = functools.partial(attention, parts=parts, bias=values["_bias"])
    mlp = ("fc1", "fc2")
    if values["use_swiglu_ffn"]:
        mlp = ("weights_in", "weights_out")
    rules = _embeddings(values, "patch_embeddings.projection")
    tables = ("embeddings.position_embeddings",)
    rules.append(Rule(TABLES, tables, layouts.TWICE))
    rules += layers(
        values["num_layers"],
        "encoder/layers_",
        "encoder.layer.",
        (heads, "attention/attention", "attention"),
        *((dense, f"mlp/{name}", f"mlp.{name}") for name in mlp),
        *LAYER,
    )
    return rules + norm("layernorm", "layernorm")


def dinov3(values):
    """Return the rules of KerasHub's DINOv3, with transformers' names."""
    # From the part of a layer to whether it has a bias.
    parts = {
        "attention.q_proj": values["use_query_bias"],
        "attention.k_proj": values["use_key_bias"],
        "attention.v_proj": values["use_value_bias"],
        "attention.o_proj": values["use_proj_bias"],
        "mlp.up_proj": values["use_mlp_bias"],
        "mlp.down_proj": values["use_mlp_bias"],
    }
    if values["use_gated_mlp"]:
        parts["mlp.gate_proj"] = values["use_mlp_bias"]
    makes = [
        (functools.partial(dense, bias=bias), part.replace(".", "/"), part)
        for part, bias in parts.items()
    ]
    return [
        *_embeddings(values, "patch_embeddings"),
        *layers(
            values["num_layers"], "encoder/layers_", "layer.", *makes, *LAYER
        ),
        *norm("layernorm", "norm"),
    ]


def _embeddings(values, patches):
    """Return the rules of tokens, and of patches with the name `patches`."""
    parts = [
        (same, "cls_token", "cls_token"),
        (_patches, "patch_embeddings/projection", patches),
    ]
    if values.get("num_register_tokens"):
        parts.append((same, "register_tokens", "register_tokens"))
    return joined("embeddings/", "embeddings.", *parts)


_patches = functools.partial(dense, layout=layouts.CONV)


def _dinov2_arguments(config, sizes):
    width, side = sizes["hidden_dim"], sizes["image_size"]
    return {
        "intermediate_dim": int(width * config.get("mlp_ratio", 4)),
        "position_embedding_shape": (side, side, 3),
        "use_mask_token": False,
        # From the type with registers on KerasHub resizes positions so.
        "antialias_in_interpolation": "num_register_tokens" in sizes,
    }


_FLAG = (True, False)
# A file without registers has a tensor of zero rows.
_REGISTERS = {"embeddings.register_tokens": "_ num_register_tokens _"}


def _dinov2_files(kind, registers):
    return Files(
        types=(kind,),
        rules=dinov2,
        sizes={
            "embeddings.patch_embeddings.projection.weight": (
                "hidden_dim _ patch_size _"
            ),
            "embeddings.position_embeddings": "_ positions _",
            **registers,
        },
        layers="encoder.layer.",
        values={
            "num_attention_heads": Value("num_heads", 12),
            "use_swiglu_ffn": Value("use_swiglu_ffn", False, _FLAG),
            "layer_norm_eps": Value(None, 1e-6, (1e-6,)),
            "hidden_act": Value(None, "gelu", ("gelu",)),
            "qkv_bias": Value("_bias", True, _FLAG),
        },
        arguments=_dinov2_arguments,
        prefix=kind,
        before=lambda config: 1,
        unread=(r"embeddings\.(mask_token|register_tokens)|classifier\..*",),
    )


DINOV3_FILES = Files(
    types=("dinov3_vit",),
    rules=dinov3,
    sizes={
        "embeddings.patch_embeddings.weight": "hidden_dim _ patch_size _",
        "layer.0.mlp.up_proj.weight": "intermediate_dim _",
        **_REGISTERS,
    },
    layers="layer.",
    values={
        "image_size": Value("image_size", 224),
        "num_attention_heads": Value("num_heads", 6),
        "hidden_act": Value("hidden_activation", "gelu", ("gelu", "silu")),
        "layer_norm_eps": Value("layer_norm_eps", 1e-5),
        "rope_theta": Value("rope_theta", 100.0),
        "use_gated_mlp": Value("use_gated_mlp", False, _FLAG),
        "query_bias": Value("use_query_bias", True, _FLAG),
        "key_bias": Value("use_key_bias", False, _FLAG),
        "value_bias": Value("use_value_bias", True, _FLAG),
        "proj_bias": Value("use_proj_bias", True, _FLAG),
        "mlp_bias": Value("use_mlp_bias", True, _FLAG),
    },
    arguments=lambda config, sizes: {"use_mask_token": False},
    prefix="model",
    unread=(r"embeddings\.(mask_token|register_tokens)",),
)


def _prefix_tokens(encoder):
    return 1 + encoder.num_register_tokens


def _freeze_mask_token(encoder):
    """Freeze the token for hidden patches, which nothing reads."""
    if encoder.use_mask_token:
        encoder.embeddings.mask_token.trainable = False


def _correct_dinov2(encoder):
    """Freeze the mask token, and save positions unchanged.

    KerasHub saves trained positions only if the sum of all their changes is
    positive, and, if the size of images is not that of positions, not exactly.
    """
    side, stored = encoder.image_shape[0], encoder.position_embedding_shape[0]
    if side != stored:
        raise ValueError(
            "`position_embedding_shape` of a DINOV2Backbone must be its "
            "`image_shape`. For other images open it by `convert.unimodal."
            "image_encoder` with `image_size`. Received: position_embedding_"
            f"shape of {stored} pixels, image_shape of {side}"
        )
    _freeze_mask_token(encoder)
    embeddings = encoder.embeddings

    def save(store):
        trained = embeddings.interpolated_position_embeddings
        embeddings.position_embeddings.assign(trained)
        type(embeddings).save_own_variables(embeddings, store)

    # For this object, not for its class.
    embeddings.save_own_variables = save


@register_encoder(
    keras_hub.models.DINOV2Backbone,
    "image",
    name="DINOv2",
    prefix_tokens=_prefix_tokens,
    correct=_correct_dinov2,
    files=(
        _dinov2_files("dinov2", {}),
        _dinov2_files("dinov2_with_registers", _REGISTERS),
    ),
    pixels={**IMAGENET, "mode": "center", "crop_pct": 224 / 256},
    sized=lambda shape: {
        "image_shape": shape,
        "position_embedding_shape": shape,
    },
    antialias=lambda encoder: encoder.antialias_in_interpolation,
)
def dinov2_states(encoder):
    x = encoder.embeddings.output
    return run_blocks(x, encoder.encoder.layers, encoder.layernorm)


@register_encoder(
    keras_hub.models.DINOV3Backbone,
    "image",
    name="DINOv3",
    prefix_tokens=_prefix_tokens,
    correct=_freeze_mask_token,
    files=(DINOV3_FILES,),
    pixels={**IMAGENET, "resample": "bilinear"},
)
def dinov3_states(encoder):
    return run_blocks(
        encoder.embeddings.output,
        encoder.encoder.layers,
        encoder.layernorm,
        position_embeddings=encoder.rope_embedding.output,
        num_prefix_tokens=_prefix_tokens(encoder),
    )
