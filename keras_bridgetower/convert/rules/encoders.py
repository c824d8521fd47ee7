"""Rules of text and image encoders, one function for each naming scheme."""

import functools

from keras_bridgetower.convert.rules import layouts
from keras_bridgetower.convert.rules.bridgetower import Rule
from keras_bridgetower.convert.rules.bridgetower import attention
from keras_bridgetower.convert.rules.bridgetower import dense
from keras_bridgetower.convert.rules.bridgetower import joined
from keras_bridgetower.convert.rules.bridgetower import norm
from keras_bridgetower.convert.rules.bridgetower import same


def roberta(prefix, num_layers):
    """Return the rules of KerasHub's RoBERTa, with transformers' names."""
    key = f"{prefix}embeddings"
    positions = Rule(
        ("embeddings/position_embedding/embeddings",),
        (
            f"{key}.position_embeddings.weight",
            f"{key}.token_type_embeddings.weight",
        ),
        layouts.POSITIONS,
    )
    return [
        positions,
        *same(
            "embeddings/token_embedding/embeddings",
            f"{key}.word_embeddings.weight",
        ),
        *norm("embeddings_layer_norm", f"{key}.LayerNorm"),
        *_post_norm_blocks(prefix, num_layers),
    ]


def bert(prefix, num_layers):
    """Return the rules of KerasHub's BERT without its pooler."""
    key = f"{prefix}embeddings"
    rules = norm("embeddings_layer_norm", f"{key}.LayerNorm")
    for ours, theirs in (
        ("token", "word"),
        ("position", "position"),
        ("segment", "token_type"),
    ):
        rules += same(
            f"{ours}_embedding/embeddings", f"{key}.{theirs}_embeddings.weight"
        )
    return rules + _post_norm_blocks(prefix, num_layers)


def _post_norm_blocks(prefix, num_layers):
    return [
        rule
        for layer in range(num_layers)
        for rule in joined(
            f"transformer_layer_{layer}/",
            f"{prefix}encoder.layer.{layer}.",
            (attention, "self_attention_layer", "attention"),
            (norm, "self_attention_layer_norm", "attention.output.LayerNorm"),
            (dense, "feedforward_intermediate_dense", "intermediate.dense"),
            (dense, "feedforward_output_dense", "output.dense"),
            (norm, "feedforward_layer_norm", "output.LayerNorm"),
        )
    ]


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
    rules = _clip_embeddings(prefix, embeddings)
    rules += norm("pre_layer_norm", f"{prefix}ln_pre")
    for layer in range(num_layers):
        rules += joined(
            f"encoder_block_{layer}/",
            f"{prefix}transformer.resblocks.{layer}.",
            (_joint_attention, "attention/", "attn."),
            (norm, "layer_norm_1", "ln_1"),
            (norm, "layer_norm_2", "ln_2"),
            (dense, "dense_1", "mlp.c_fc"),
            (dense, "dense_2", "mlp.c_proj"),
        )
    return rules


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


def clip(prefix, num_layers):
    """Return the rules of CLIP's vision encoder, with transformers' names."""
    rules = _clip_embeddings(prefix, BRIDGETOWER_EMBEDDINGS)
    # transformers misspells `pre_layrnorm`.
    rules += norm("pre_layer_norm", f"{prefix}pre_layrnorm")
    rules += norm("layer_norm", f"{prefix}post_layernorm")

    projections = functools.partial(
        attention, parts=("q_proj", "k_proj", "v_proj"), output="out_proj"
    )
    for layer in range(num_layers):
        rules += joined(
            f"encoder_block_{layer}/",
            f"{prefix}encoder.layers.{layer}.",
            (projections, "attention", "self_attn"),
            (norm, "layer_norm_1", "layer_norm1"),
            (norm, "layer_norm_2", "layer_norm2"),
            (dense, "dense_1", "mlp.fc1"),
            (dense, "dense_2", "mlp.fc2"),
        )
    return rules


def vit(prefix, num_layers):
    """Return the rules of KerasHub's ViT, with transformers' names."""
    path, key = "vit_patching_and_embedding", f"{prefix}embeddings"
    return [
        *same(f"{path}/class_token", f"{key}.cls_token"),
        *same(
            f"{path}/position_embedding/embeddings",
            f"{key}.position_embeddings",
            layouts.LEADING_AXIS,
        ),
        *_image_blocks("vit", prefix, num_layers, "mlp/dense_1", "mlp/dense_2"),
    ]


def deit(prefix, num_layers):
    """Return the rules of KerasHub's DeiT, with transformers' names."""
    return [
        *joined(
            "deit_patching_and_embedding/",
            f"{prefix}embeddings.",
            (same, "class_token", "cls_token"),
            (same, "distillation_token", "distillation_token"),
            (same, "position_embedding", "position_embeddings"),
        ),
        *_image_blocks(
            "deit", prefix, num_layers, "mlp/dense", "output_layer/output"
        ),
    ]


def _image_blocks(kind, prefix, num_layers, hidden, output):
    rules = dense(
        f"{kind}_patching_and_embedding/patch_embedding",
        f"{prefix}embeddings.patch_embeddings.projection",
        layouts.CONV,
    )

    parts = ("attention.query", "attention.key", "attention.value")
    projections = functools.partial(attention, parts=parts)
    for layer in range(num_layers):
        rules += joined(
            f"{kind}_encoder/transformer_block_{layer + 1}/",
            f"{prefix}encoder.layer.{layer}.",
            (projections, "mha", "attention"),
            (norm, "ln_1", "layernorm_before"),
            (norm, "ln_2", "layernorm_after"),
            (dense, hidden, "intermediate.dense"),
            (dense, output, "output.dense"),
        )
    return rules + norm(f"{kind}_encoder/ln", f"{prefix}layernorm")
