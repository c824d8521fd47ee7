"""RoBERTa (Liu et al., 2019)."""

import keras_hub

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.bert import post_norm_rules
from keras_bridgetower.encoders.bert import post_norm_states
from keras_bridgetower.encoders.bert import text_files
from keras_bridgetower.encoders.layers import TokenLookup
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


@register_encoder(
    keras_hub.models.RobertaBackbone,
    "text",
    name="RoBERTa",
    files=(text_files(("roberta",), roberta, 1e-5, layouts.PADDING_ROWS),),
)
def states(encoder):
    tokens = TokenLookup(encoder.token_embedding, name="token_lookup")(
        encoder.input["token_ids"]
    )
    x = tokens + encoder.embeddings.position_embedding(tokens)
    return post_norm_states(encoder, x)
