"""Opens BridgeTower folders of `transformers`: configuration and weights."""

import dataclasses
import pathlib
import warnings

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import bridgetower
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import processors
from keras_bridgetower.convert.checkpoint import Checkpoint
from keras_bridgetower.convert.checkpoint import unread_keys
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tensors import weight_file
from keras_bridgetower.encoders import clip
from keras_bridgetower.encoders import roberta
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.presets.errors import ConversionError

NAMES = architecture.Names(
    "text_model.", "vision_model.visual.", clip.BRIDGETOWER_EMBEDDINGS
)
# The class of transformers for each head. `MODEL` is the one without heads.
CLASSES = {
    "itm": "BridgeTowerForImageAndTextRetrieval",
    "mlm": "BridgeTowerForMaskedLM",
    "itc": "BridgeTowerForContrastiveLearning",
}
MODEL = "BridgeTowerModel"
# Prefix of the names of the model's tensors in a class with a head.
PREFIX = "bridgetower."


def read(folder):
    """Open a BridgeTower folder that `transformers` wrote.

    Args:
        folder: path of the folder.

    Returns:
        `Checkpoint`.

    Raises:
        ConversionError: files are damaged or hold another model, or
            transformers itself cannot run the architecture.
    """
    folder = pathlib.Path(folder)
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    configurations.require_type(
        config,
        path,
        ["bridgetower"],
        " For encoders alone see `keras_bridgetower.convert.unimodal`.",
    )
    levels = configurations.read_levels(config, path)
    top = levels["top"]
    tensors = open_tensors(weight_file(folder)).without_prefix(PREFIX)
    measured = architecture.measure(tensors, NAMES)
    built = dataclasses.replace(
        measured, **configurations.architecture_fields(levels)
    )
    _check(levels, built, path)
    epsilon = float(top["layer_norm_eps"])
    heads = architecture.heads(tensors.shapes, epsilon, "three_way")
    table = rules(built, heads)
    decoder = "mlm_score.decoder.weight"
    if top["tie_word_embeddings"] and decoder not in tensors.shapes:
        word = "text_model.embeddings.word_embeddings.weight"
        table = [
            Rule(rule.variables, (word,), rule.layout)
            if decoder in rule.keys
            else rule
            for rule in table
        ]
    unread = unread_keys(table, tensors)
    read_processors = processors.read(folder, built)
    return Checkpoint(tensors, built, heads, table, unread, read_processors)


def _check(levels, m, path):
    """Reject values that contradict the weights or that cannot be run."""
    wrong = configurations.contradictions(levels, m)
    if m.text_layers != m.image_layers:
        # With `remove_last_layer`, the removed layer is not counted.
        wrong.append(
            f"{m.text_layers} text and {m.image_layers} image blocks, which "
            "transformers counts from the bottom and cannot run"
        )
    if wrong:
        raise ConversionError(
            "A configuration must belong to the weights, and transformers must "
            "be able to run it.",
            path,
            wrong,
        )
    text = levels["text"]
    if text["attention_probs_dropout_prob"] != text["hidden_dropout_prob"]:
        warnings.warn(
            "The text encoder has one dropout rate, hidden_dropout_prob="
            f"{text['hidden_dropout_prob']}: attention_probs_dropout_prob="
            f"{text['attention_probs_dropout_prob']} is used in the fusion "
            "alone. Only training is affected.",
            stacklevel=2,
        )


def rules(a, heads):
    """Return the rules of an architecture and heads, in transformers' names."""
    return [
        *roberta.roberta(NAMES.text, a.text_layers),
        *clip.openai_clip(NAMES.image, a.image_layers, NAMES.embeddings),
        *clip.final_norm(NAMES.image),
        *bridgetower.fusion(a),
        *bridgetower.heads(bridgetower.TRANSFORMERS_HEADS, heads),
    ]
