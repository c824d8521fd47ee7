"""RoBERTa (Liu et al., 2019) and XLM-RoBERTa (Conneau et al., 2020)."""

import keras_hub

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.bert import BERT_SIZES
from keras_bridgetower.encoders.bert import block_states
from keras_bridgetower.encoders.bert import normed
from keras_bridgetower.encoders.bert import post_norm_rules
from keras_bridgetower.encoders.bert import text_files
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import SPECIAL_IDS
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same


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
        *post_norm_rules(prefix, num_layers),
    ]


BYTE_BPE = Tokens(kind="byte_bpe", ids=SPECIAL_IDS)
PIECES = Tokens(
    kind="xlm_roberta",
    special=(
        ("bos_token", "<s>"),
        ("pad_token", "<pad>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("mask_token", "<mask>"),
    ),
    ends_twice=True,
    ids=SPECIAL_IDS,
)


def _files(kind, tokens):
    """Return the `Files` of RoBERTa under the name of a model type."""
    return text_files(
        (kind,),
        lambda sizes: roberta("", sizes["num_layers"]),
        epsilon=1e-5,
        # Both types have one prefix, and one row of segments.
        sizes={k: v for k, v in BERT_SIZES.items() if "token_type" not in k},
        prefix="roberta",
        before=layouts.PADDING_ROWS,
        tokens=tokens,
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
    x = normed(encoder, tokens + encoder.embeddings.position_embedding(tokens))
    return block_states(encoder, x, encoder.transformer_layers)
