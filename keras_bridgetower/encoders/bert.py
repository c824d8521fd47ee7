"""BERT (Devlin et al., 2019), and the blocks that RoBERTa shares."""

import keras
import keras_hub

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.encoders.layers import TokenLookup
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same


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
    return rules + post_norm_rules(prefix, num_layers)


def post_norm_rules(prefix, num_layers):
    """Return the rules of the blocks of a RoBERTa or BERT."""
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


def post_norm_states(encoder, x):
    """Return the states of a RoBERTa or BERT with the embeddings `x`."""
    x = encoder.embeddings_dropout(encoder.embeddings_layer_norm(x))
    states = []
    for block in encoder.transformer_layers:
        x = block(x, padding_mask=encoder.input["padding_mask"])
        states.append(x)
    return states


def text_files(types, rules, epsilon, before=0):
    """Return the `Files` of a RoBERTa or BERT.

    Args:
        types: tuple of str, model types of `transformers`.
        rules: function of a prefix and a number of layers.
        epsilon: float, the only one that KerasHub's class has.
        before: int, rows of positions that belong to padding.
    """
    return Files(
        types=types,
        rules=lambda sizes: rules("", sizes["num_layers"]),
        sizes={
            "embeddings.word_embeddings.weight": "vocabulary_size hidden_dim",
            "embeddings.position_embeddings.weight": "positions _",
            "encoder.layer.0.intermediate.dense.weight": "intermediate_dim _",
        },
        layers="encoder.layer.",
        values={
            "num_attention_heads": Value("num_heads", 12),
            "layer_norm_eps": Value(None, 1e-12, (epsilon,)),
            "hidden_act": Value(None, "gelu", ("gelu",)),
        },
        prefix=types[0],
        before=before,
        # Poolers and heads of other tasks.
        unread=(r"(bert\.|roberta\.)?pooler\..*|(lm_head|cls|classifier)\..*",),
    )


def _exact_gelu(encoder):
    """Use the exact GELU of BERT's training, which KerasHub approximates."""
    for block in encoder.transformer_layers:
        for layer in layers_in(block):
            if layer.name == "feedforward_intermediate_dense":
                layer.activation = keras.activations.gelu


@register_encoder(
    keras_hub.models.BertBackbone,
    "text",
    name="BERT",
    correct=_exact_gelu,
    files=(text_files(("bert",), bert, 1e-12),),
)
def states(encoder):
    tokens = TokenLookup(encoder.token_embedding, name="token_lookup")(
        encoder.input["token_ids"]
    )
    segments = TokenLookup(encoder.segment_embedding, name="segment_lookup")(
        encoder.input["segment_ids"]
    )
    positions = encoder.position_embedding(tokens)
    return post_norm_states(encoder, tokens + positions + segments)
