"""DistilBERT (Sanh et al., 2019)."""

import functools

import keras_hub

from keras_bridgetower.encoders import roberta
from keras_bridgetower.encoders.bert import block_rules
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

_ATTENTION = functools.partial(
    attention, parts=("q_lin", "k_lin", "v_lin"), output="out_lin"
)
_BLOCK = (
    "attention",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)


def distilbert(sizes):
    """Return the rules of KerasHub's DistilBERT."""
    rules = norm("embeddings_layer_norm", "embeddings.LayerNorm")
    for ours, theirs in (("token", "word"), ("position", "position")):
        rules += same(
            f"token_and_position_embedding/{ours}_embedding/embeddings",
            f"embeddings.{theirs}_embeddings.weight",
        )
    for layer in range(sizes["num_layers"]):
        rules += block_rules(
            f"transformer_layer_{layer}/",
            f"transformer.layer.{layer}.",
            _ATTENTION,
            _BLOCK,
        )
    return rules


FILES = Files(
    types=("distilbert",),
    rules=distilbert,
    sizes={
        "embeddings.word_embeddings.weight": "vocabulary_size hidden_dim",
        "embeddings.position_embeddings.weight": "positions _",
        "transformer.layer.0.ffn.lin1.weight": "intermediate_dim _",
    },
    layers="transformer.layer.",
    values={
        "n_heads": Value("num_heads", 12),
        "activation": Value(None, "gelu", ("gelu",)),
    },
    claims={
        "n_layers": "num_layers",
        "dim": "hidden_dim",
        "hidden_dim": "intermediate_dim",
    },
    prefix="distilbert",
    tokens=Tokens(kind="wordpiece"),
    # Heads of all tasks.
    unread=(
        r"vocab_(transform|layer_norm|projector)\..*",
        r"(pre_classifier|classifier|qa_outputs)\..*",
    ),
)


register_encoder(
    keras_hub.models.DistilBertBackbone,
    "text",
    name="DistilBERT",
    files=(FILES,),
)(roberta.states)
