"""Opens BridgeTower folders of `transformers`: configuration and weights."""

import dataclasses
import functools
import pathlib
import warnings

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import config_table
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import processors
from keras_bridgetower.convert.checkpoint import Checkpoint
from keras_bridgetower.convert.checkpoint import unread_keys
from keras_bridgetower.convert.rules import bridgetower
from keras_bridgetower.convert.rules import encoders
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tensors import weight_file
from keras_bridgetower.presets.errors import ConversionError

NAMES = architecture.Names(
    "text_model.", "vision_model.visual.", encoders.BRIDGETOWER_EMBEDDINGS
)
# The class of transformers for each head. `MODEL` is the one without heads.
CLASSES = {
    "itm": "BridgeTowerForImageAndTextRetrieval",
    "mlm": "BridgeTowerForMaskedLM",
    "itc": "BridgeTowerForContrastiveLearning",
}
MODEL = "BridgeTowerModel"
# Comes before the names of the model's tensors in a class with a head.
PREFIX = "bridgetower."


def read(folder):
    """Open a folder that `transformers` wrote.

    Args:
        folder: path of the folder.

    Returns:
        `Checkpoint`.

    Raises:
        ConversionError: files are damaged, or hold another model, or an
            architecture that transformers itself cannot run.
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
    top, text, vision = configurations.read_levels(config, path)
    tensors = open_tensors(weight_file(folder)).without_prefix(PREFIX)
    measured = architecture.measure(tensors, NAMES)
    levels = {"top": top, "text": text, "vision": vision}
    _check(levels, measured, path)
    built = dataclasses.replace(
        measured, **config_table.architecture_fields(levels)
    )
    heads = _heads(tensors, top)
    table = rules(built, heads)
    decoder = "mlm_score.decoder.weight"
    if top["tie_word_embeddings"] and decoder not in tensors.shapes:
        word = "text_model.embeddings.word_embeddings.weight"
        read_word = functools.partial(tensors.read, word)
        tensors = tensors.with_value(decoder, tensors.shapes[word], read_word)
    return Checkpoint(
        tensors,
        built,
        heads,
        table,
        unread_keys(table, tensors),
        processors.read(folder, built),
    )


def _check(levels, m, path):
    """Reject values that contradict the weights, or that cannot be run."""
    wrong = config_table.contradictions(levels, m)
    if m.text_layers != m.image_layers:
        # With `remove_last_layer`, the removed layer is not counted.
        wrong.append(
            f"{m.text_layers} text and {m.image_layers} image blocks, which "
            "transformers counts from the bottom and cannot run"
        )
    if m.text_width != m.hidden_dim:
        wrong.append(
            f"text hidden_size={m.text_width}, from which transformers builds "
            f"its cross-modal layers of width {m.hidden_dim}"
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


def _heads(tensors, top):
    """Return the names and constructor values of the heads in a file."""
    heads = {}
    if "itm_score.fc.weight" in tensors.shapes:
        heads["itm"] = {}
    if "mlm_score.bias" in tensors.shapes:
        heads["mlm"] = {"epsilon": float(top["layer_norm_eps"])}
    width = architecture.head_rows(tensors.shapes, "itc_text_head.fc.weight")
    if width:
        if not top["share_cross_modal_transformer_layers"]:
            raise ConversionError(
                "A contrastive head needs shared projections: transformers "
                "cannot run it otherwise.",
                tensors.path,
                ["share_cross_modal_transformer_layers=False"],
            )
        heads["itc"] = {"projection_dim": width, "ways": "three_way"}
    return heads


def rules(a, heads):
    """Return the rules of an architecture and heads, in transformers' names."""
    return [
        *encoders.roberta(NAMES.text, a.text_layers),
        *encoders.openai_clip(NAMES.image, a.image_layers, NAMES.embeddings),
        *encoders.final_norm(NAMES.image),
        *bridgetower.fusion(a),
        *bridgetower.heads(bridgetower.TRANSFORMERS_HEADS, heads),
    ]
