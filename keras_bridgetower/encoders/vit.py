"""ViT (Dosovitskiy et al., 2021) and DeiT (Touvron et al., 2021)."""

import functools

import keras_hub

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.layers import FirstOutput
from keras_bridgetower.encoders.layers import run_blocks
from keras_bridgetower.encoders.registry import HALF
from keras_bridgetower.encoders.registry import IMAGENET
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same


def vit(values):
    """Return the rules of KerasHub's ViT, with transformers' names."""
    path, key = "vit_patching_and_embedding", "embeddings"
    return [
        *same(f"{path}/class_token", f"{key}.cls_token"),
        *same(
            f"{path}/position_embedding/embeddings",
            f"{key}.position_embeddings",
            layouts.LEADING_AXIS,
        ),
        *_image_blocks("vit", values, "mlp/dense_1", "mlp/dense_2"),
    ]


def deit(values):
    """Return the rules of KerasHub's DeiT, with transformers' names."""
    return [
        *joined(
            "deit_patching_and_embedding/",
            "embeddings.",
            (same, "class_token", "cls_token"),
            (same, "distillation_token", "distillation_token"),
            (same, "position_embedding", "position_embeddings"),
        ),
        *_image_blocks("deit", values, "mlp/dense", "output_layer/output"),
    ]


def _image_blocks(kind, values, hidden, output):
    rules = dense(
        f"{kind}_patching_and_embedding/patch_embedding",
        "embeddings.patch_embeddings.projection",
        layouts.CONV,
    )

    parts = ("attention.query", "attention.key", "attention.value")
    heads = functools.partial(attention, parts=parts, bias=values["_bias"])
    for layer in range(values["num_layers"]):
        rules += joined(
            f"{kind}_encoder/transformer_block_{layer + 1}/",
            f"encoder.layer.{layer}.",
            (heads, "mha", "attention"),
            (norm, "ln_1", "layernorm_before"),
            (norm, "ln_2", "layernorm_after"),
            (dense, hidden, "intermediate.dense"),
            (dense, output, "output.dense"),
        )
    return rules + norm(f"{kind}_encoder/ln", "layernorm")


def _files(types, rules, before, hidden="intermediate_dim"):
    return Files(
        types=types,
        rules=rules,
        sizes={
            "embeddings.patch_embeddings.projection.weight": (
                "hidden_dim _ patch_size _"
            ),
            "embeddings.position_embeddings": "_ positions _",
            "encoder.layer.0.intermediate.dense.weight": f"{hidden} _",
        },
        claims={"intermediate_size": hidden},
        layers="encoder.layer.",
        values={
            "num_attention_heads": Value("num_heads", 12),
            "layer_norm_eps": Value("layer_norm_epsilon", 1e-12),
            "hidden_act": Value(None, "gelu", ("gelu",)),
            "qkv_bias": Value("_bias", True, (True, False)),
        },
        prefix=types[0],
        before=lambda config: before,
        unread=(r"pooler\..*|(distillation_|cls_)?classifier\..*",),
    )


@register_encoder(
    keras_hub.models.ViTBackbone,
    "image",
    name="ViT",
    files=(_files(("vit",), vit, 1, "mlp_dim"),),
    pixels={**HALF, "resample": "bilinear"},
)
def vit_states(encoder):
    blocks = encoder.get_layer("vit_encoder")
    x = encoder.get_layer("vit_patching_and_embedding").output
    return run_blocks(
        blocks.dropout(x), blocks.encoder_layers, blocks.layer_norm
    )


@register_encoder(
    keras_hub.models.DeiTBackbone,
    "image",
    name="DeiT",
    prefix_tokens=lambda encoder: 2,
    files=(_files(("deit",), deit, 2),),
    pixels={**IMAGENET, "crop_pct": 224 / 256},
)
def deit_states(encoder):
    blocks = encoder.get_layer("deit_encoder")
    x = encoder.get_layer("deit_patching_and_embedding").output
    outputs = (
        FirstOutput(block, name=f"{block.name}_output")
        for block in blocks.encoder_layers
    )
    return run_blocks(x, outputs, blocks.layer_norm)
