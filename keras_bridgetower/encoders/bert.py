"""BERT (Devlin et al., 2019), and what other text encoders share with it."""

import keras
import keras_hub

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.encoders.layers import TokenLookup
from keras_bridgetower.encoders.layers import run_blocks
from keras_bridgetower.encoders.layers import token_embeddings
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Tokens
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

BERT_SIZES = {
    "embeddings.word_embeddings.weight": "vocabulary_size hidden_dim",
    "embeddings.position_embeddings.weight": "positions _",
    "embeddings.token_type_embeddings.weight": "num_segments _",
    "encoder.layer.0.intermediate.dense.weight": "intermediate_dim _",
}
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
    return rules


def post_norm_rules(prefix, num_layers):
    """Return the rules of the blocks of a RoBERTa or BERT."""
    return [
        rule
        for layer in range(num_layers)
        for rule in block_rules(
            f"transformer_layer_{layer}/", f"{prefix}encoder.layer.{layer}."
        )
    ]


def block_rules(
    path,
    key,
    projections=attention,
    names=(
        "attention",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ),
):
    """Return the rules of a post-norm block of KerasHub.

    Args:
        path: str, the start of the paths of its variables.
        key: str, the start of the names of its tensors.
        projections: function that returns the rules of its attention.
        names: tuple of str, how the names of the attention, its norm, both
            dense layers and the last norm go on.
    """
    makes = (projections, norm, dense, dense, norm)
    paths = (
        "self_attention_layer",
        "self_attention_layer_norm",
        "feedforward_intermediate_dense",
        "feedforward_output_dense",
        "feedforward_layer_norm",
    )
    return joined(path, key, *zip(makes, paths, names, strict=True))


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


def text_files(
    types, rules, epsilon=1e-12, sizes=BERT_SIZES, own=None, **others
):
    """Return the `Files` of an encoder whose tensors have BERT's names.

    Args:
        types: tuple of str, model types of `transformers`.
        rules: function of a dict of sizes.
        epsilon: float, the only one that KerasHub's class has.
        sizes: dict, as `Files` takes it.
        own: dict of `Value`, beside those of BERT or in their place.
        **others: further arguments of `Files`, such as `before`.
    """
    return Files(
        **dict(
            types=types,
            rules=rules,
            sizes=sizes,
            layers="encoder.layer.",
            values={
                "num_attention_heads": Value("num_heads", 12),
                "layer_norm_eps": Value(None, 1e-12, (epsilon,)),
                "hidden_act": Value(None, "gelu", ("gelu",)),
                **(own or {}),
            },
            prefix=types[0],
            unread=HEADS,
            tokens=WORD_PIECES,
        )
        | others
    )


def exact_gelu(encoder):
    """Use the exact GELU of BERT's training, which KerasHub approximates."""
    for block in encoder.transformer_layers:
        for layer in layers_in(block):
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
