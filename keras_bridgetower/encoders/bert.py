"""BERT and its relatives, and the parts that other text encoders share with it.

BERT (Devlin et al., 2019), ALBERT (Lan et al., 2020), ELECTRA (Clark et al.,
2020), and DeBERTa-v3 (He et al., 2021), whose files have the type of
DeBERTa-v2.
"""

import functools

import keras
import keras_hub

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.encoders.layers import TokenLookup
from keras_bridgetower.encoders.layers import run_blocks
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import SPECIAL_IDS
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.encoders.rules import layers
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same
from keras_bridgetower.presets.configs import MOST_LAYERS

BERT_SIZES = {
    "embeddings.word_embeddings.weight": "vocabulary_size hidden_dim",
    "embeddings.position_embeddings.weight": "positions _",
    "embeddings.token_type_embeddings.weight": "num_segments _",
    "encoder.layer.0.intermediate.dense.weight": "intermediate_dim _",
}
# The largest value that a configuration may give for a number of positions.
MOST = 100_000
WORD_PIECES = Tokens(kind="wordpiece", has_segments=True)
# Poolers, and the heads of all tasks of `transformers`.
HEADS = (
    r"(bert\.|roberta\.)?pooler\..*|(cls|lm_head|classifier|qa_outputs)\..*",
)


def bert(prefix, num_layers):
    """Return the rules of KerasHub's BERT without its pooler."""
    return embedding_rules(prefix) + post_norm_rules(prefix, num_layers)


def embedding_rules(prefix):
    """Return the rules of embeddings of tokens, positions and segments."""
    return joined(
        "",
        f"{prefix}embeddings.",
        (norm, "embeddings_layer_norm", "LayerNorm"),
        (same, "token_embedding/embeddings", "word_embeddings.weight"),
        (same, "position_embedding/embeddings", "position_embeddings.weight"),
        (same, "segment_embedding/embeddings", "token_type_embeddings.weight"),
    )


def post_norm_rules(prefix, num_layers):
    """Return the rules of the blocks of a RoBERTa or BERT."""
    return block_rules(
        num_layers, "transformer_layer_", f"{prefix}encoder.layer."
    )


BLOCK = (
    "attention",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def block_rules(num_layers, path, key, projections=attention, names=BLOCK):
    """Return the rules of the post-norm blocks of KerasHub.

    Args:
        num_layers, path, key: as in `layers`.
        projections: function that returns the rules of an attention.
        names: tuple of str, the rest of the names of the attention, its norm,
            both dense layers and the last norm.
    """
    makes = (projections, norm, dense, dense, norm)
    paths = (
        "self_attention_layer",
        "self_attention_layer_norm",
        "feedforward_intermediate_dense",
        "feedforward_output_dense",
        "feedforward_layer_norm",
    )
    parts = zip(makes, paths, names, strict=True)
    return layers(num_layers, path, key, *parts)


def embedded(encoder):
    """Return the embeddings of a BERT, after their norm."""
    tokens = token_embeddings(encoder, encoder.token_embedding)
    segments = TokenLookup(encoder.segment_embedding, name="segment_lookup")(
        encoder.input["segment_ids"]
    )
    positions = encoder.position_embedding(tokens)
    return normed(encoder, tokens + positions + segments)


def normed(encoder, x):
    """Return embeddings after their norm and dropout."""
    return encoder.embeddings_dropout(encoder.embeddings_layer_norm(x))


def block_states(encoder, x, blocks, **arguments):
    """Return the outputs of blocks that read the padding mask."""
    mask = encoder.input["padding_mask"]
    return run_blocks(x, blocks, padding_mask=mask, **arguments)


def text_files(types, rules, sizes=BERT_SIZES, own=None, **others):
    """Return the `Files` of an encoder whose tensors have BERT's names.

    Args:
        types: tuple of str, model types of `transformers`.
        rules: function of a dict of sizes.
        sizes: dict, as in `Files`.
        own: dict of `Value`, added to those of BERT or replacing them.
        **others: further arguments of `Files`, such as `before`.
    """
    usual = dict(
        types=types,
        rules=rules,
        sizes=sizes,
        layers="encoder.layer.",
        values={
            "num_attention_heads": Value("num_heads", 12),
            "layer_norm_eps": Value(None, 1e-12, (1e-12,)),
            "hidden_act": Value(None, "gelu", ("gelu",)),
            "is_decoder": Value(None, False, (False,)),
            "position_embedding_type": Value(None, "absolute", ("absolute",)),
            **(own or {}),
        },
        prefix=types[0],
        unread=HEADS,
        tokens=WORD_PIECES,
    )
    return Files(**usual | others)


def exact_gelu(encoder):
    """Set the exact GELU of BERT's training, which KerasHub approximates."""
    for layer in layers_in(encoder):
        if layer.name == "feedforward_intermediate_dense":
            layer.activation = keras.activations.gelu


@register_encoder(
    keras_hub.models.BertBackbone,
    "text",
    name="BERT",
    correct=exact_gelu,
    files=(text_files(("bert",), lambda sizes: bert("", sizes["num_layers"])),),
    unused=("pooled_dense",),
)
def states(encoder):
    return block_states(encoder, embedded(encoder), encoder.transformer_layers)


_GROUPS = "encoder.albert_layer_groups."
_FIRST = f"{_GROUPS}0.albert_layers."
_ATTENTION = functools.partial(
    attention, parts=("query", "key", "value"), output="dense"
)
_BLOCK = (
    "attention attention.LayerNorm ffn ffn_output full_layer_layer_norm"
).split()


def albert(sizes):
    """Return the rules of KerasHub's ALBERT without its pooler."""
    rules = embedding_rules("")
    rules += dense(
        "embedding_projection", "encoder.embedding_hidden_mapping_in"
    )
    for group in range(sizes["num_groups"]):
        rules += block_rules(
            sizes["num_inner_repetitions"],
            f"group_{group}_inner_layer_",
            f"{_GROUPS}{group}.albert_layers.",
            _ATTENTION,
            _BLOCK,
        )
    return rules


ALBERT = text_files(
    ("albert",),
    albert,
    sizes={
        "embeddings.word_embeddings.weight": "vocabulary_size embedding_dim",
        "embeddings.position_embeddings.weight": "positions _",
        "embeddings.token_type_embeddings.weight": "num_segments _",
        f"{_FIRST}0.ffn.weight": "intermediate_dim hidden_dim",
    },
    layers={"num_groups": _GROUPS, "num_inner_repetitions": _FIRST},
    own={
        # Blocks are shared, so tensors do not give their number.
        "num_hidden_layers": Value("num_layers", 12, range(1, MOST_LAYERS + 1)),
        "num_attention_heads": Value("num_heads", 64),
        "hidden_act": Value(
            None, "gelu_new", ("gelu_new", "gelu_pytorch_tanh")
        ),
    },
    claims={
        "num_hidden_groups": "num_groups",
        "inner_group_num": "num_inner_repetitions",
    },
    tokens=Tokens(kind="albert", has_segments=True, ids=SPECIAL_IDS),
    unread=(*HEADS, r"(predictions|sop_classifier)\..*"),
)


@register_encoder(
    keras_hub.models.AlbertBackbone,
    "text",
    name="ALBERT",
    unused=("pooled_dense",),
    files=(ALBERT,),
)
def albert_states(encoder):
    # A group of blocks, with the same weights, is called several times.
    times = encoder.num_layers // encoder.num_groups
    blocks = [
        block for group in encoder.transformer_layers for block in group * times
    ]
    return block_states(
        encoder, encoder.embeddings_projection(embedded(encoder)), blocks
    )


def electra(sizes):
    """Return the rules of KerasHub's ELECTRA without its pooler."""
    rules = embedding_rules("") + post_norm_rules("", sizes["num_layers"])
    if sizes["embedding_dim"] != sizes["hidden_dim"]:
        rules += dense("embeddings_projection", "embeddings_project")
    return rules


def _correct_electra(encoder):
    exact_gelu(encoder)
    # The name in other encoders, which heads and checks read.
    encoder.vocabulary_size = encoder.vocab_size


ELECTRA = text_files(
    ("electra",),
    electra,
    # KerasHub's ELECTRA has another name for the vocabulary's size.
    sizes=BERT_SIZES
    | {
        "embeddings.word_embeddings.weight": "vocab_size embedding_dim",
        "encoder.layer.0.intermediate.dense.weight": (
            "intermediate_dim hidden_dim"
        ),
    },
    own={"num_attention_heads": Value("num_heads", 4)},
    claims={"vocab_size": "vocab_size"},
    # The heads of the discriminator and of the generator.
    unread=(
        *HEADS,
        r"(discriminator|generator)_predictions\..*",
        r"(generator_lm_head|sequence_summary)\..*",
    ),
)


@register_encoder(
    keras_hub.models.ElectraBackbone,
    "text",
    name="ELECTRA",
    unused=("pooled_dense",),
    correct=_correct_electra,
    files=(ELECTRA,),
)
def electra_states(encoder):
    x = embedded(encoder)
    if encoder.embedding_dim != encoder.hidden_dim:
        x = encoder.embeddings_projection(x)
    return block_states(encoder, x, encoder.transformer_layers)


_SELF_ATTENTION = functools.partial(
    attention, parts=("self.query_proj", "self.key_proj", "self.value_proj")
)


def deberta(sizes):
    """Return the rules of KerasHub's DeBERTa-v3."""
    return [
        *same(
            "token_embedding/embeddings", "embeddings.word_embeddings.weight"
        ),
        *norm("embeddings_layer_norm", "embeddings.LayerNorm"),
        *same("rel_embedding/rel_embedding", "encoder.rel_embeddings.weight"),
        *norm("rel_embedding/rel_embeddings_layer_norm", "encoder.LayerNorm"),
        *block_rules(
            sizes["num_layers"],
            "disentangled_attention_encoder_layer_",
            "encoder.layer.",
            _SELF_ATTENTION,
        ),
    ]


def _deberta_positions(config, sizes):
    """Return the number of positions: the range of distances if it is set."""
    most = config.get("max_relative_positions", -1)
    if most < 1:
        most = config.get("max_position_embeddings", 512)
    return {"max_sequence_length": most}


DEBERTA = text_files(
    ("deberta-v2",),
    deberta,
    sizes={
        "embeddings.word_embeddings.weight": "vocabulary_size hidden_dim",
        "encoder.layer.0.intermediate.dense.weight": "intermediate_dim _",
    },
    own={
        "num_attention_heads": Value("num_heads", 24),
        "layer_norm_eps": Value(None, 1e-7, (1e-7,)),
        "position_buckets": Value("bucket_size", -1, range(2, MOST)),
        "max_position_embeddings": Value(None, 512, range(1, MOST)),
        "max_relative_positions": Value(None, -1, range(-1, MOST)),
        # KerasHub has the kind of attention of version 3 only.
        "relative_attention": Value(None, False, (True,)),
        "position_biased_input": Value(None, True, (False,)),
        "share_att_key": Value(None, False, (True,)),
        "norm_rel_ebd": Value(None, "none", ("layer_norm",)),
        "pos_att_type": Value(
            None, None, ("p2c|c2p", "c2p|p2c", ["p2c", "c2p"], ["c2p", "p2c"])
        ),
        "type_vocab_size": Value(None, 0, (0,)),
        "conv_kernel_size": Value(None, 0, (0,)),
    },
    arguments=_deberta_positions,
    prefix="deberta",
    tokens=Tokens(kind="deberta"),
    # Published files keep positions for the heads of pre-training.
    unread=(
        *HEADS,
        r"(lm|mask)_predictions\..*",
        r"embeddings\.position_embeddings\.weight",
    ),
)


@register_encoder(
    keras_hub.models.DebertaV3Backbone,
    "text",
    name="DeBERTa-v3",
    # Its positions are counted by `arange`, which takes no symbolic length.
    not_exported=("torch",),
    files=(DEBERTA,),
)
def deberta_states(encoder):
    tokens = token_embeddings(encoder, encoder.token_embedding)
    x = normed(encoder, tokens)
    distances = encoder.relative_embeddings(x)
    return block_states(
        encoder, x, encoder.transformer_layers, rel_embeddings=distances
    )
