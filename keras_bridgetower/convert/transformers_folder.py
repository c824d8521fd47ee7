"""`transformers` folders: configuration and weights, both ways."""

import dataclasses
import functools
import pathlib
import warnings

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import processors
from keras_bridgetower.convert import transfer
from keras_bridgetower.convert.checkpoint import Checkpoint
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.rules import bridgetower
from keras_bridgetower.convert.rules import encoders
from keras_bridgetower.convert.rules.layouts import PADDING_ROWS
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tensors import weight_file

NAMES = architecture.Names(
    "text_model.", "vision_model.visual.", encoders.BRIDGETOWER_EMBEDDINGS
)
# Ours by theirs; what the shapes say is checked against it.
LINKS = {
    "add": "add",
    "scaled_add": "scaled_add",
    "interpolate": "interpolate_scalar",
}
# Their class for each head, and for none.
CLASSES = {
    "itm": "BridgeTowerForImageAndTextRetrieval",
    "mlm": "BridgeTowerForMaskedLM",
    "itc": "BridgeTowerForContrastiveLearning",
}
MODEL = "BridgeTowerModel"
PREFIX = "bridgetower."


def read(folder):
    """Open a folder that `transformers` wrote.

    Args:
        folder: path of the folder.

    Returns:
        `Checkpoint`.

    Raises:
        ConversionError: damaged files, another model, or an architecture
            that transformers itself cannot run.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    config = read_json(path)
    configurations.require(
        config,
        path,
        ["bridgetower"],
        " For encoders alone see `keras_bridgetower.convert.unimodal`.",
    )
    top, text, vision = configurations.bridgetower(config, path)
    tensors = open_tensors(weight_file(folder)).without_prefix(PREFIX)
    measured = architecture.measure(tensors, NAMES)
    _check(top, text, vision, measured, path)
    built = dataclasses.replace(
        measured,
        text_heads=text["num_attention_heads"],
        # Their cross-modal layers are made from the text configuration.
        num_heads=text["num_attention_heads"],
        text_dropout=text["hidden_dropout_prob"],
        dropout=text["hidden_dropout_prob"],
        layer_norm_epsilon=text["layer_norm_eps"],
        bridge_epsilon=top["layer_norm_eps"],
    )
    heads = _heads(tensors, top)
    tables = rules_of(built, heads)
    decoder = "mlm_score.decoder.weight"
    if top["tie_word_embeddings"] and decoder not in tensors.shapes:
        word = "text_model.embeddings.word_embeddings.weight"
        read_word = functools.partial(tensors.read, word)
        tensors = tensors.with_value(decoder, tensors.shapes[word], read_word)
    return Checkpoint(
        tensors,
        built,
        heads,
        tables,
        transfer.unread_keys(tables, tensors),
        processors.read(folder, built),
    )


def _check(top, text, vision, measured, path):
    """Refuse values that the weights deny, or that nobody can run."""
    m = measured
    said = [
        ("hidden_size", top["hidden_size"], m.hidden_dim),
        ("num_hidden_layers", top["num_hidden_layers"], m.num_layers),
        ("link_tower_type", LINKS.get(top["link_tower_type"]), m.bridge),
        (
            "share_cross_modal_transformer_layers",
            top["share_cross_modal_transformer_layers"],
            m.projections == "shared",
        ),
        *(
            (f"text {name}", text[name], found)
            for name, found in (
                ("vocab_size", m.vocabulary_size),
                ("hidden_size", m.text_width),
                ("num_hidden_layers", m.text_layers),
                ("intermediate_size", m.intermediate_dim),
                ("intermediate_size", m.text_intermediate),
                ("max_position_embeddings", m.positions + PADDING_ROWS),
            )
        ),
        ("vision hidden_size", vision["hidden_size"], m.image_width),
        ("vision patch_size", vision["patch_size"], m.patch_size),
        (
            "vision image_size",
            vision["image_size"] // max(vision["patch_size"], 1),
            m.image_size // m.patch_size,
        ),
        (
            "vision num_hidden_layers",
            vision["num_hidden_layers"] - vision["remove_last_layer"],
            m.image_layers,
        ),
    ]
    wrong = [
        f"{name}: {value} said, {found} in the weights"
        for name, value, found in said
        if value != found
    ]
    wrong += [
        f"{name}={value!r}, only {allowed} can be built"
        for name, value, allowed in (
            ("text hidden_act", text["hidden_act"], "gelu"),
            ("text layer_norm_eps", text["layer_norm_eps"], 1e-5),
            ("vision layer_norm_eps", vision["layer_norm_eps"], 1e-5),
            ("text pad_token_id", text["pad_token_id"], 1),
            ("text type_vocab_size", text["type_vocab_size"], 1),
            ("share_link_tower_layers", top["share_link_tower_layers"], False),
        )
        if value != allowed
    ]
    wrong += [
        f"{name}={value}, not between 0 and 1"
        for name, value in (
            ("hidden_dropout_prob", text["hidden_dropout_prob"]),
            ("layer_norm_eps", top["layer_norm_eps"]),
        )
        if not 0 <= value < 1
    ]
    if m.text_layers != m.image_layers:
        # Also where `remove_last_layer` takes one of them away.
        wrong.append(
            f"{m.text_layers} text and {m.image_layers} image blocks, which "
            "transformers counts from the bottom and cannot run"
        )
    if m.text_width != m.hidden_dim:
        wrong.append(
            f"text hidden_size={m.text_width}, of which transformers makes "
            f"its cross-modal layers of width {m.hidden_dim}"
        )
    if wrong:
        raise ConversionError(
            "A configuration must be that of the weights, and one that "
            "transformers can run.",
            path,
            wrong,
        )
    if text["attention_probs_dropout_prob"] != text["hidden_dropout_prob"]:
        warnings.warn(
            "One dropout rate is kept, hidden_dropout_prob="
            f"{text['hidden_dropout_prob']}; attention_probs_dropout_prob="
            f"{text['attention_probs_dropout_prob']} is left out, which only "
            "training would feel.",
            stacklevel=2,
        )


def _heads(tensors, top):
    """The heads that a file holds, by name, with their plain values."""
    heads = {}
    if "itm_score.fc.weight" in tensors.shapes:
        heads["itm"] = {}
    if "mlm_score.bias" in tensors.shapes:
        heads["mlm"] = {"epsilon": float(top["layer_norm_eps"])}
    width = architecture.rows_of(
        tensors.shapes, "itc_text_head.fc.weight", tensors.path
    )
    if width:
        if not top["share_cross_modal_transformer_layers"]:
            raise ConversionError(
                "A contrastive head must go with shared projections: "
                "transformers cannot run it otherwise.",
                tensors.path,
                ["share_cross_modal_transformer_layers=False"],
            )
        heads["itc"] = {"projection_dim": width, "ways": "three_way"}
    return heads


def rules_of(a, heads):
    """The rules of an architecture and heads, by transformers' names."""
    return [
        *encoders.roberta(NAMES.text, a.text_layers),
        *encoders.openai_clip(NAMES.image, a.image_layers, NAMES.embeddings),
        *encoders.final_norm(NAMES.image),
        *bridgetower.fusion(a),
        *bridgetower.heads(bridgetower.TRANSFORMERS_HEADS, heads),
    ]
