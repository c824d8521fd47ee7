"""DeBERTa-v3 (He et al., 2021), whose files have the type of DeBERTa-v2."""

import functools

import keras_hub

from keras_bridgetower.encoders.bert import HEADS
from keras_bridgetower.encoders.bert import MOST
from keras_bridgetower.encoders.bert import block_rules
from keras_bridgetower.encoders.bert import block_states
from keras_bridgetower.encoders.bert import normed
from keras_bridgetower.encoders.bert import text_files
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

_ATTENTION = functools.partial(
    attention, parts=("self.query_proj", "self.key_proj", "self.value_proj")
)


def deberta(sizes):
    """Return the rules of KerasHub's DeBERTa-v3."""
    rules = [
        *same(
            "token_embedding/embeddings", "embeddings.word_embeddings.weight"
        ),
        *norm("embeddings_layer_norm", "embeddings.LayerNorm"),
        *same("rel_embedding/rel_embedding", "encoder.rel_embeddings.weight"),
        *norm("rel_embedding/rel_embeddings_layer_norm", "encoder.LayerNorm"),
    ]
    for layer in range(sizes["num_layers"]):
        rules += block_rules(
            f"disentangled_attention_encoder_layer_{layer}/",
            f"encoder.layer.{layer}.",
            _ATTENTION,
        )
    return rules


def _positions(config, sizes):
    """Return the number of positions: the range of distances if it is set."""
    most = config.get("max_relative_positions", -1)
    if most < 1:
        most = config.get("max_position_embeddings", 512)
    return {"max_sequence_length": most}


@register_encoder(
    keras_hub.models.DebertaV3Backbone,
    "text",
    name="DeBERTa-v3",
    # Its positions are counted by `arange`, which takes no symbolic length.
    not_exported=("torch",),
    files=(
        text_files(
            ("deberta-v2",),
            deberta,
            epsilon=1e-7,
            sizes={
                "embeddings.word_embeddings.weight": (
                    "vocabulary_size hidden_dim"
                ),
                "encoder.layer.0.intermediate.dense.weight": (
                    "intermediate_dim _"
                ),
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
                    None,
                    None,
                    ("p2c|c2p", "c2p|p2c", ["p2c", "c2p"], ["c2p", "p2c"]),
                ),
                "type_vocab_size": Value(None, 0, (0,)),
                "conv_kernel_size": Value(None, 0, (0,)),
            },
            arguments=_positions,
            prefix="deberta",
            tokens=Tokens(kind="deberta"),
            # Published files keep positions for the heads of pre-training.
            unread=(
                *HEADS,
                r"(lm|mask)_predictions\..*",
                r"embeddings\.position_embeddings\.weight",
            ),
        ),
    ),
)
def states(encoder):
    tokens = token_embeddings(encoder, encoder.token_embedding)
    x = normed(encoder, tokens)
    distances = encoder.relative_embeddings(x)
    return block_states(
        encoder, x, encoder.transformer_layers, rel_embeddings=distances
    )
