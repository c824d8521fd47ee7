"""ELECTRA (Clark et al., 2020)."""

import keras_hub

from keras_bridgetower.encoders.bert import BERT_SIZES
from keras_bridgetower.encoders.bert import HEADS
from keras_bridgetower.encoders.bert import block_states
from keras_bridgetower.encoders.bert import embedded
from keras_bridgetower.encoders.bert import embedding_rules
from keras_bridgetower.encoders.bert import exact_gelu
from keras_bridgetower.encoders.bert import post_norm_rules
from keras_bridgetower.encoders.bert import text_files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import dense


def electra(sizes):
    """Return the rules of KerasHub's ELECTRA without its pooler."""
    rules = embedding_rules("") + post_norm_rules("", sizes["num_layers"])
    if sizes["embedding_dim"] != sizes["hidden_dim"]:
        rules += dense("embeddings_projection", "embeddings_project")
    return rules


def _vocab_size(config, sizes):
    """KerasHub's ELECTRA has a name of its own for the vocabulary."""
    return {"vocab_size": sizes["vocabulary_size"], "vocabulary_size": None}


def _correct(encoder):
    exact_gelu(encoder)
    # The name that other encoders have, which heads and checks read.
    encoder.vocabulary_size = encoder.vocab_size


@register_encoder(
    keras_hub.models.ElectraBackbone,
    "text",
    name="ELECTRA",
    unused=("pooled_dense",),
    correct=_correct,
    files=(
        text_files(
            ("electra",),
            electra,
            sizes=BERT_SIZES
            | {
                "embeddings.word_embeddings.weight": (
                    "vocabulary_size embedding_dim"
                ),
                "encoder.layer.0.intermediate.dense.weight": (
                    "intermediate_dim hidden_dim"
                ),
            },
            own={"num_attention_heads": Value("num_heads", 4)},
            arguments=_vocab_size,
            # The heads of the discriminator and of the generator.
            unread=(
                *HEADS,
                r"(discriminator|generator)_predictions\..*",
                r"(generator_lm_head|sequence_summary)\..*",
            ),
        ),
    ),
)
def states(encoder):
    x = embedded(encoder)
    if encoder.embedding_dim != encoder.hidden_dim:
        x = encoder.embeddings_projection(x)
    return block_states(encoder, x, encoder.transformer_layers)
