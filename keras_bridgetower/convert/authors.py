"""Checkpoint files of the authors: a state dict with hyper-parameters.

Neither Lightning nor the authors' code is needed, and nothing in a file is
executed.
"""

import dataclasses
import pathlib

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import processors
from keras_bridgetower.convert import transfer
from keras_bridgetower.convert.checkpoint import Checkpoint
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.errors import shown
from keras_bridgetower.convert.rules import bridgetower
from keras_bridgetower.convert.rules import encoders
from keras_bridgetower.convert.tensors import load_pickle
from keras_bridgetower.convert.tensors import of_state_dict
from keras_bridgetower.convert.tensors import refuse_code
from keras_bridgetower.convert.torch_tensors import Foreign

NAMES = architecture.Names(
    "text_transformer.", "vit_model.visual.", encoders.OPENAI_EMBEDDINGS
)
# Their cross-modal layers and masked language head were built with BERT's
# default, their bridges and entries with torch's.
LAYER_NORM_EPSILON = 1e-12
# Of their hyper-parameters, those that shapes do not tell, with their defaults.
SETTINGS = dict(drop_rate=0.1, nlvr2_drop_rate=0.1, max_text_len=50)
# Their fine-tuning evaluates on squashed pictures, their pre-training on
# cropped ones.
FINE_TUNED = ("vqa", "entailment", "nlvr2", "rank")


def read(path, text_heads=None, answers=None, ignore=()):
    """Open a checkpoint file of the authors, of BridgeTower or METER.

    Args:
        path: path of the `.ckpt` file. Tokenizer files of RoBERTa are looked
            for beside it.
        text_heads: int, attention heads of the text encoder, which a file
            does not say. By default as many as the cross-modal layers have
            where the widths are equal, else one for 64 of width.
        answers: list of str, the classes of a question answering head, which
            a file does not name.
        ignore: tuple of patterns of names that may be left.

    Returns:
        `Checkpoint`.

    Raises:
        ConversionError: a damaged file, one that asks for code, or another
            model.
    """
    path = pathlib.Path(path)
    content, names = load_pickle(path)
    if not isinstance(content, dict) or "state_dict" not in content:
        # A state dict alone; beside it, Lightning keeps what we skip.
        refuse_code(path, names)
        content = {"state_dict": content}
    tensors = of_state_dict(path, content["state_dict"])
    measured = architecture.measure(tensors, NAMES)
    heads_by_width = architecture.heads_of(measured.hidden_dim)
    defaults = {"num_heads": heads_by_width, **SETTINGS}
    given = _given(content, path)
    settings = _settings(given, defaults, path)
    _check_sizes(given, measured, path)
    num_heads = settings["num_heads"]
    same = measured.text_width == measured.hidden_dim
    per_tap = f"{NAMES.image}ln_separate.0.weight" in tensors.shapes
    built = dataclasses.replace(
        measured,
        text_heads=text_heads
        or (num_heads if same else architecture.heads_of(measured.text_width)),
        num_heads=num_heads,
        dropout=settings["drop_rate"],
        layer_norm_epsilon=LAYER_NORM_EPSILON,
        image_norms="per_tap" if per_tap else "shared",
    )
    heads = _heads(tensors.shapes, built, settings, answers, path)
    table = rules_of(built, heads)
    unread = bridgetower.UNREAD + ((bridgetower.UNTAPPED,) if per_tap else ())
    mode = "squash" if set(heads) & set(FINE_TUNED) else "crop"
    return Checkpoint(
        tensors,
        built,
        heads,
        table,
        transfer.unread_keys(table, tensors, unread, ignore),
        processors.read(path.parent, built, mode, settings["max_text_len"]),
    )


def rules_of(a, heads):
    """The rules of an architecture and heads, by the authors' names."""
    text = {"roberta": encoders.roberta, "bert": encoders.bert}
    if a.image_norms == "per_tap":
        norms = encoders.tap_norms(NAMES.image, a.image_layers, a.taps)
    else:
        norms = encoders.final_norm(NAMES.image)
    return [
        *text[a.text_encoder](NAMES.text, a.text_layers),
        *encoders.openai_clip(NAMES.image, a.image_layers),
        *norms,
        *bridgetower.fusion(a),
        *bridgetower.heads(bridgetower.LIGHTNING_HEADS, heads),
    ]


def _given(content, path):
    """The hyper-parameters of a file, an empty dict where it has none."""
    given = content.get("hyper_parameters", {})
    if isinstance(given, dict):
        given = given.get("config", given)
    if isinstance(given, Foreign):
        refuse_code(path, [given.name])
    if not isinstance(given, dict):
        raise ConversionError(
            "Hyper-parameters must be a dict of plain values.",
            path,
            [f"hyper_parameters={shown(given)}"],
        )
    return given


def _settings(given, defaults, path):
    """The hyper-parameters that matter, checked, or their defaults."""
    settings = {key: given.get(key, defaults[key]) for key in defaults}
    wrong = []
    for key, value in settings.items():
        whole = isinstance(defaults[key], int)
        kinds = (int,) if whole else (int, float)
        least = 3 if key == "max_text_len" else 0
        if type(value) not in kinds or not (
            least <= value and (whole or value < 1)
        ):
            wrong.append(f"{key}={shown(value)}")
    if wrong:
        raise ConversionError(
            "Hyper-parameters must be plain values of the authors' kinds.",
            path,
            wrong,
        )
    return settings


def _check_sizes(given, a, path):
    """Refuse hyper-parameters that are not those of the tensors."""
    wanted = {"vocab_size": a.vocabulary_size, "hidden_size": a.hidden_dim}
    if "num_top_layer" not in given:  # METER's name of the same number.
        wanted["num_layers"] = a.num_layers
    wrong = [
        f"{key}={shown(given[key])}, its tensors say {size}"
        for key, size in wanted.items()
        if key in given and given[key] != size
    ]
    side = given.get("image_size", a.image_size)
    # A side that the patches do not fill is cut, as a convolution does.
    if type(side) is not int or (
        side // a.patch_size != a.image_size // a.patch_size
    ):
        wrong.append(
            f"image_size={shown(side)}, its tensors say {a.image_size}"
        )
    if wrong:
        raise ConversionError(
            "Hyper-parameters must be those with which the weights were "
            "trained. Correct them, or save the state dict alone.",
            path,
            wrong,
        )


def _heads(shapes, a, settings, answers, path):
    """The heads that a file holds, by name, with their plain values."""
    heads = {}
    if "itm_score.fc.weight" in shapes:
        heads["itm"] = {}
    if "rank_output.weight" in shapes:
        heads["rank"] = {}
    if "mlm_score.bias" in shapes:
        heads["mlm"] = {"epsilon": LAYER_NORM_EPSILON}
    width = architecture.rows_of(shapes, "itc_text_head.fc.weight", path)
    if width:
        heads["itc"] = {"projection_dim": width, "ways": "two_way"}
    for name, key in (
        ("vqa", "vqa_classifier"),
        ("entailment", "snli_classifier"),
        ("nlvr2", "nlvr2_classifier"),
    ):
        hidden, output = (shapes.get(f"{key}.{i}.weight") for i in (0, 3))
        if hidden and output:
            heads[name] = {
                "num_classes": output[0],
                "head_hidden_scale": hidden[0] / (2 * a.hidden_dim),
            }
    if "nlvr2" in heads:
        heads["nlvr2"]["dropout"] = float(settings["nlvr2_drop_rate"])
    if "vqa" in heads:
        heads["vqa"]["answers"] = _checked(answers, heads["vqa"], path)
    return heads


def _checked(answers, head, path):
    if answers is not None and len(answers) != head["num_classes"]:
        raise ConversionError(
            "`answers` must name every class of the head once, in the order "
            "of training.",
            path,
            [f"{len(answers)} answers, {head['num_classes']} classes"],
        )
    return answers
