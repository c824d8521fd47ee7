"""Rules of text and image encoders, one function for each naming scheme."""

from keras_bridgetower.convert.rules import layouts
from keras_bridgetower.convert.rules.bridgetower import Rule
from keras_bridgetower.convert.rules.bridgetower import attention
from keras_bridgetower.convert.rules.bridgetower import dense
from keras_bridgetower.convert.rules.bridgetower import norm
from keras_bridgetower.convert.rules.layouts import CONV
from keras_bridgetower.convert.rules.layouts import HEADS_DENSE
from keras_bridgetower.convert.rules.layouts import LEADING_AXIS
from keras_bridgetower.convert.rules.layouts import SAME
from keras_bridgetower.convert.rules.layouts import SPLIT_BIAS
from keras_bridgetower.convert.rules.layouts import SPLIT_DENSE


def roberta(prefix, num_layers):
    """Return the rules of KerasHub's RoBERTa, with transformers' names."""
    key = f"{prefix}embeddings"
    table = "embeddings/token_embedding/embeddings"
    return [
        Rule((table,), (f"{key}.word_embeddings.weight",), SAME),
        Rule(
            ("embeddings/position_embedding/embeddings",),
            (
                f"{key}.position_embeddings.weight",
                f"{key}.token_type_embeddings.weight",
            ),
            layouts.POSITIONS,
        ),
        *norm("embeddings_layer_norm", f"{key}.LayerNorm"),
        *_post_norm_blocks(prefix, num_layers),
    ]


def bert(prefix, num_layers):
    """Return the rules of KerasHub's BERT without its pooler."""
    key = f"{prefix}embeddings"
    tables = {"token": "word", "position": "position", "segment": "token_type"}
    return [
        *(
            Rule(
                (f"{ours}_embedding/embeddings",),
                (f"{key}.{theirs}_embeddings.weight",),
                SAME,
            )
            for ours, theirs in tables.items()
        ),
        *norm("embeddings_layer_norm", f"{key}.LayerNorm"),
        *_post_norm_blocks(prefix, num_layers),
    ]


def _post_norm_blocks(prefix, num_layers):
    rules = []
    for layer in range(num_layers):
        path = f"transformer_layer_{layer}"
        key = f"{prefix}encoder.layer.{layer}"
        own = f"{path}/self_attention_layer"
        rules += attention(own, f"{key}.attention")
        rules += norm(f"{own}_norm", f"{key}.attention.output.LayerNorm")
        rules += dense(
            f"{path}/feedforward_intermediate_dense",
            f"{key}.intermediate.dense",
        )
        rules += dense(
            f"{path}/feedforward_output_dense", f"{key}.output.dense"
        )
        rules += norm(
            f"{path}/feedforward_layer_norm", f"{key}.output.LayerNorm"
        )
    return rules


# Names of the embeddings of CLIP's image encoder, in OpenAI's files and in
# those of transformers' BridgeTower.
OPENAI_EMBEDDINGS = ("class_embedding", "conv1.weight", "positional_embedding")
BRIDGETOWER_EMBEDDINGS = (
    "embeddings.class_embedding",
    "embeddings.patch_embedding.weight",
    "embeddings.position_embedding.weight",
)


def openai_clip(prefix, num_layers, embeddings=OPENAI_EMBEDDINGS):
    """Return the rules of CLIP's vision encoder, with OpenAI's names."""
    rules = _clip_embeddings([f"{prefix}{name}" for name in embeddings])
    rules += norm("pre_layer_norm", f"{prefix}ln_pre")
    for layer in range(num_layers):
        path = f"encoder_block_{layer}"
        key = f"{prefix}transformer.resblocks.{layer}"
        own = [f"{path}/attention/{part}" for part in ("query", "key", "value")]
        for kind, name, layout in (
            ("kernel", "weight", SPLIT_DENSE),
            ("bias", "bias", SPLIT_BIAS),
        ):
            rules.append(
                Rule(
                    tuple(f"{part}/{kind}" for part in own),
                    (f"{key}.attn.in_proj_{name}",),
                    layout,
                )
            )
        rules += dense(
            f"{path}/attention/attention_output",
            f"{key}.attn.out_proj",
            HEADS_DENSE,
        )
        rules += norm(f"{path}/layer_norm_1", f"{key}.ln_1")
        rules += norm(f"{path}/layer_norm_2", f"{key}.ln_2")
        rules += dense(f"{path}/dense_1", f"{key}.mlp.c_fc")
        rules += dense(f"{path}/dense_2", f"{key}.mlp.c_proj")
    return rules


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


def _clip_embeddings(keys):
    token, patches, positions = keys
    path = "embedding"
    return [
        Rule((f"{path}/class_embedding",), (token,), SAME),
        Rule((f"{path}/patch_embedding/kernel",), (patches,), CONV),
        Rule((f"{path}/position_embedding/embeddings",), (positions,), SAME),
    ]


def clip(prefix, num_layers):
    """Return the rules of CLIP's vision encoder, with transformers' names."""
    names = ("class_embedding", "patch_embedding.weight")
    rules = _clip_embeddings(
        [
            f"{prefix}embeddings.{name}"
            for name in (*names, "position_embedding.weight")
        ]
    )
    # transformers misspells `pre_layrnorm`.
    rules += norm("pre_layer_norm", f"{prefix}pre_layrnorm")
    rules += norm("layer_norm", f"{prefix}post_layernorm")
    for layer in range(num_layers):
        path = f"encoder_block_{layer}"
        key = f"{prefix}encoder.layers.{layer}"
        rules += attention(
            f"{path}/attention",
            f"{key}.self_attn",
            ("q_proj", "k_proj", "v_proj"),
            "out_proj",
        )
        rules += norm(f"{path}/layer_norm_1", f"{key}.layer_norm1")
        rules += norm(f"{path}/layer_norm_2", f"{key}.layer_norm2")
        rules += dense(f"{path}/dense_1", f"{key}.mlp.fc1")
        rules += dense(f"{path}/dense_2", f"{key}.mlp.fc2")
    return rules


def vit(prefix, num_layers):
    """Return the rules of KerasHub's ViT, with transformers' names."""
    path = "vit_patching_and_embedding"
    key = f"{prefix}embeddings"
    return [
        Rule((f"{path}/class_token",), (f"{key}.cls_token",), SAME),
        Rule(
            (f"{path}/position_embedding/embeddings",),
            (f"{key}.position_embeddings",),
            LEADING_AXIS,
        ),
        *_image_blocks(
            "vit", prefix, num_layers, ("mlp/dense_1", "mlp/dense_2")
        ),
    ]


def deit(prefix, num_layers):
    """Return the rules of KerasHub's DeiT, with transformers' names."""
    path = "deit_patching_and_embedding"
    key = f"{prefix}embeddings"
    names = {
        "class_token": "cls_token",
        "distillation_token": "distillation_token",
        "position_embedding": "position_embeddings",
    }
    return [
        *(
            Rule((f"{path}/{ours}",), (f"{key}.{theirs}",), SAME)
            for ours, theirs in names.items()
        ),
        *_image_blocks(
            "deit", prefix, num_layers, ("mlp/dense", "output_layer/output")
        ),
    ]


def _image_blocks(kind, prefix, num_layers, feedforward):
    patches = f"{kind}_patching_and_embedding/patch_embedding"
    rules = dense(
        patches, f"{prefix}embeddings.patch_embeddings.projection", CONV
    )
    for layer in range(num_layers):
        path = f"{kind}_encoder/transformer_block_{layer + 1}"
        key = f"{prefix}encoder.layer.{layer}"
        parts = ("attention.query", "attention.key", "attention.value")
        rules += attention(f"{path}/mha", f"{key}.attention", parts)
        rules += norm(f"{path}/ln_1", f"{key}.layernorm_before")
        rules += norm(f"{path}/ln_2", f"{key}.layernorm_after")
        hidden, output = feedforward
        rules += dense(f"{path}/{hidden}", f"{key}.intermediate.dense")
        rules += dense(f"{path}/{output}", f"{key}.output.dense")
    rules += norm(f"{kind}_encoder/ln", f"{prefix}layernorm")
    return rules
