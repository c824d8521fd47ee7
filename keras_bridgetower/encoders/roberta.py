"""RoBERTa, XLM-RoBERTa and DistilBERT, which have no segments.

RoBERTa (Liu et al., 2019), XLM-RoBERTa (Conneau et al., 2020), DistilBERT
(Sanh et al., 2019); and RoBERTa whose padding has a position of its own, as in
`transformers`.
"""

import functools

import keras
import keras_hub
import numpy as np
from keras import ops

from keras_bridgetower.encoders import bert
from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import SPECIAL_IDS
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import hidden_states
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same


def roberta(prefix, num_layers, layout=layouts.POSITIONS):
    """Return the rules of KerasHub's RoBERTa, with transformers' names.

    `layout` is that of positions and token types.
    """
    key = f"{prefix}embeddings"
    positions = Rule(
        ("embeddings/position_embedding/embeddings",),
        (
            f"{key}.position_embeddings.weight",
            f"{key}.token_type_embeddings.weight",
        ),
        layout,
    )
    return [
        positions,
        *same(
            "embeddings/token_embedding/embeddings",
            f"{key}.word_embeddings.weight",
        ),
        *norm("embeddings_layer_norm", f"{key}.LayerNorm"),
        *bert.post_norm_rules(prefix, num_layers),
    ]


BYTE_BPE = Tokens(kind="byte_bpe", ids=SPECIAL_IDS)
PIECES = Tokens(kind="xlm_roberta", ids=SPECIAL_IDS)


def _rules(sizes):
    padding = sizes["positions"] - sizes["max_sequence_length"]
    layout = layouts.positions(padding, sizes["_types"])
    return roberta("", sizes["num_layers"], layout)


def _files(kind, tokens):
    """Return the `Files` of RoBERTa under the name of a model type."""
    return bert.text_files(
        (kind,),
        _rules,
        sizes=bert.BERT_SIZES
        | {"embeddings.token_type_embeddings.weight": "_types _"},
        own={
            "pad_token_id": Value(None, 1, range(bert.MOST)),
            "layer_norm_eps": Value(None, 1e-12, (1e-5,)),
        },
        claims={"type_vocab_size": "_types"},
        # Both types have one prefix.
        prefix="roberta",
        before=lambda config: config.get("pad_token_id", 1) + 1,
        tokens=tokens,
    )


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
    return rules + bert.block_rules(
        sizes["num_layers"],
        "transformer_layer_",
        "transformer.layer.",
        _ATTENTION,
        _BLOCK,
    )


DISTILBERT = Files(
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


@register_encoder(
    keras_hub.models.DistilBertBackbone,
    "text",
    name="DistilBERT",
    files=(DISTILBERT,),
)
@register_encoder(
    keras_hub.models.RobertaBackbone,
    "text",
    name="RoBERTa",
    files=(_files("roberta", BYTE_BPE),),
)
@register_encoder(
    keras_hub.models.XLMRobertaBackbone,
    "text",
    name="XLM-RoBERTa",
    files=(_files("xlm-roberta", PIECES),),
)
def states(encoder):
    tokens = token_embeddings(encoder, encoder.token_embedding)
    x = tokens + encoder.embeddings.position_embedding(tokens)
    x = bert.normed(encoder, x)
    return bert.block_states(encoder, x, encoder.transformer_layers)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class PaddedPositions(keras.layers.Layer):
    """Add positions to tokens, and the padding's own position to padding.

    The token type is a separate weight. As in `transformers`, padding learns
    neither its position nor its token.

    Call arguments:
        tokens, positions: float tensors `(batch, tokens, width)`.
        padding_mask: int tensor `(batch, tokens)`, 0 at padding.

    Returns:
        Float tensor `(batch, tokens, width)`.
    """

    def build(self, tokens_shape, **other_shapes):
        zeros = {"shape": tokens_shape[-1:], "initializer": "zeros"}
        self.padding = self.add_weight(name="padding", trainable=False, **zeros)
        self.token_type = self.add_weight(name="token_type", **zeros)

    def call(self, tokens, positions, padding_mask):
        padding = ops.stop_gradient(tokens) + self.padding
        kept = ops.cast(padding_mask, "bool")[..., None]
        x = ops.where(kept, tokens + positions, padding)
        return x + self.token_type

    def compute_output_shape(self, tokens_shape, **other_shapes):
        return tokens_shape


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class PaddedRobertaBackbone(keras_hub.models.RobertaBackbone):
    """RoBERTa whose padding has a position of its own.

    For models that read padding: adaptive managers. Its states at padding are
    those of `transformers`, at tokens those of RoBERTa. This applies to the
    states of `hidden_states` only.

    Args:
        **kwargs: as `keras_hub.models.RobertaBackbone`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.padded_positions = PaddedPositions(
            dtype=self.dtype_policy, name="padded_positions"
        )


@hidden_states.register(PaddedRobertaBackbone)
def padded_states(encoder):
    tokens = token_embeddings(encoder, encoder.token_embedding)
    positions = encoder.embeddings.position_embedding(tokens)
    mask = encoder.input["padding_mask"]
    x = encoder.padded_positions(tokens, positions, mask)
    x = bert.normed(encoder, x)
    return bert.block_states(encoder, x, encoder.transformer_layers)


def _load(tensors, shapes):
    rows, types = tensors
    padding = layouts.PADDING_ROWS - 1
    return [rows[layouts.PADDING_ROWS :], rows[padding], types[0]]


def _save(values):
    rows, padding, token_type = values
    unused = np.zeros_like(padding)
    return [np.concatenate([[unused, padding], rows]), token_type[None]]


# Of the two rows for padding, no token reads the first.
_POSITIONS = layouts.Layout(_load, _save, outside=1)


def padded_roberta(prefix, num_layers):
    """Return the rules of `PaddedRobertaBackbone`, as `roberta`."""
    positions, *others = roberta(prefix, num_layers)
    own = ("padded_positions/padding", "padded_positions/token_type")
    paths = (*positions.variables, *own)
    return [Rule(paths, positions.keys, _POSITIONS), *others]
