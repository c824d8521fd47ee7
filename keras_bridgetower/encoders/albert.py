"""ALBERT (Lan et al., 2020)."""

import functools

import keras_hub

from keras_bridgetower.encoders.bert import BERT_SIZES
from keras_bridgetower.encoders.bert import HEADS
from keras_bridgetower.encoders.bert import block_rules
from keras_bridgetower.encoders.bert import block_states
from keras_bridgetower.encoders.bert import embedded
from keras_bridgetower.encoders.bert import embedding_rules
from keras_bridgetower.encoders.bert import text_files
from keras_bridgetower.encoders.registry import SPECIAL_IDS
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.presets.configs import MOST_LAYERS

_GROUPS = "encoder.albert_layer_groups."
_FIRST = f"{_GROUPS}0.albert_layers."
_ATTENTION = functools.partial(
    attention, parts=("query", "key", "value"), output="dense"
)
_BLOCK = (
    "attention",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
)


def albert(sizes):
    """Return the rules of KerasHub's ALBERT without its pooler."""
    rules = embedding_rules("")
    rules += dense(
        "embedding_projection", "encoder.embedding_hidden_mapping_in"
    )
    for group in range(sizes["num_groups"]):
        for inner in range(sizes["num_inner_repetitions"]):
            rules += block_rules(
                f"group_{group}_inner_layer_{inner}/",
                f"{_GROUPS}{group}.albert_layers.{inner}.",
                _ATTENTION,
                _BLOCK,
            )
    return rules


@register_encoder(
    keras_hub.models.AlbertBackbone,
    "text",
    name="ALBERT",
    unused=("pooled_dense",),
    files=(
        text_files(
            ("albert",),
            albert,
            sizes={
                name: sizes
                for name, sizes in BERT_SIZES.items()
                if "embeddings" in name
            }
            | {
                "embeddings.word_embeddings.weight": (
                    "vocabulary_size embedding_dim"
                ),
                f"{_FIRST}0.ffn.weight": "intermediate_dim hidden_dim",
            },
            layers={"num_groups": _GROUPS, "num_inner_repetitions": _FIRST},
            own={
                # Blocks are shared, so tensors do not tell their number.
                "num_hidden_layers": Value(
                    "num_layers", 12, range(1, MOST_LAYERS + 1)
                ),
                "num_attention_heads": Value("num_heads", 64),
                "hidden_act": Value(
                    None, "gelu_new", ("gelu_new", "gelu_pytorch_tanh")
                ),
            },
            claims={
                "num_hidden_groups": "num_groups",
                "inner_group_num": "num_inner_repetitions",
            },
            tokens=Tokens(
                kind="albert",
                special=(
                    ("cls_token", "[CLS]"),
                    ("pad_token", "<pad>"),
                    ("sep_token", "[SEP]"),
                    ("unk_token", "<unk>"),
                    ("mask_token", "[MASK]"),
                ),
                has_segments=True,
                ids=SPECIAL_IDS,
            ),
            unread=(*HEADS, r"(predictions|sop_classifier)\..*"),
        ),
    ),
)
def states(encoder):
    # A group of blocks, with the same weights, is called several times.
    times = encoder.num_layers // encoder.num_groups
    blocks = [
        block for group in encoder.transformer_layers for block in group * times
    ]
    return block_states(
        encoder, encoder.embeddings_projection(embedded(encoder)), blocks
    )
