"""Opens checkpoint files (`.ckpt`) of BridgeTower, METER and ManagerTower.

Such a file has a state dict and the hyper-parameters of the training. It is
read without Lightning, and no code in it is executed.
"""

import dataclasses
import pathlib

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import bridgetower
from keras_bridgetower.convert import processors
from keras_bridgetower.convert import torch_files
from keras_bridgetower.convert.checkpoint import Checkpoint
from keras_bridgetower.convert.checkpoint import unread_keys
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import reject_code
from keras_bridgetower.convert.tensors import state_dict_tensors
from keras_bridgetower.encoders import bert
from keras_bridgetower.encoders import clip
from keras_bridgetower.encoders import roberta
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import short_plain

NAMES = architecture.Names(
    "text_transformer.", "vit_model.visual.", clip.OPENAI_EMBEDDINGS
)
# The authors' cross-modal layers and masked language head use BERT's default
# epsilon. Their bridges and the norms before them use PyTorch's default.
LAYER_NORM_EPSILON = 1e-12
# Hyper-parameters that tensor shapes do not give, with the authors' defaults.
SETTINGS = dict(drop_rate=0.1, nlvr2_drop_rate=0.1, max_text_len=50)
# Heads of fine-tuned models. The authors evaluate those on squashed pictures,
# and pre-trained models on cropped pictures.
FINE_TUNED = ("vqa", "entailment", "nlvr2", "rank")


def read(path, text_heads=None, answers=None, ignore=()):
    """Open a checkpoint file of BridgeTower, METER or ManagerTower.

    Args:
        path: path of the `.ckpt` file. Tokenizer files of RoBERTa are read
            from its folder.
        text_heads: int, number of attention heads of the text encoder, which
            the file does not have. By default that of the cross-modal layers
            if both have the same width, else the width divided by 64.
        answers: list of str, the classes of a question answering head, which
            the file does not have.
        ignore: tuple of regular expressions of the names of tensors that the
            model may lack.

    Returns:
        `Checkpoint`.

    Raises:
        ConversionError: the file is damaged, would run code, or has another
            model.
    """
    path = pathlib.Path(path)
    check_links(path)
    content, names = torch_files.load(path)
    if not isinstance(content, dict) or "state_dict" not in content:
        # The file is only a state dict. Objects that Lightning stores beside
        # one are ignored and need no check.
        reject_code(path, names)
        content = {"state_dict": content}
    tensors = state_dict_tensors(path, content["state_dict"])
    measured = architecture.measure(tensors, NAMES)
    saved = _hyper_parameters(content, path)
    num_heads = clip.heads_for_width(measured.hidden_dim)
    settings = {"num_heads": num_heads, **SETTINGS, **saved}
    _check_sizes(saved, measured, path)
    num_heads = settings["num_heads"]
    if text_heads is None:
        same_width = measured.text_width == measured.hidden_dim
        by_width = clip.heads_for_width(measured.text_width)
        text_heads = num_heads if same_width else by_width
    per_tap = f"{NAMES.image}ln_separate.0.weight" in tensors.shapes
    built = dataclasses.replace(
        measured,
        text_heads=text_heads,
        num_heads=num_heads,
        dropout=settings["drop_rate"],
        layer_norm_epsilon=LAYER_NORM_EPSILON,
        image_norms="per_tap" if per_tap else "shared",
    )
    heads = _heads(tensors.shapes, built, settings, answers, path)
    table = rules(built, heads)
    allowed = (*bridgetower.UNREAD, *ignore)
    if per_tap:
        allowed += (bridgetower.UNTAPPED,)
    unread = unread_keys(table, tensors, allowed)
    # Retrieval models of ManagerTower have the pre-trained contrastive head,
    # but no head of masked words.
    retrieval = "itc" in heads and "mlm" not in heads
    tuned = retrieval or set(heads) & set(FINE_TUNED)
    mode = "squash" if tuned else "crop"
    length = settings["max_text_len"]
    read_processors = processors.read(path.parent, built, mode, length)
    return Checkpoint(tensors, built, heads, table, unread, read_processors)


def rules(a, heads):
    """Return the rules of an architecture and heads, in the authors' names."""
    text = {
        "roberta": roberta.padded_roberta if a.managed else roberta.roberta,
        "bert": bert.bert,
    }
    table = bridgetower.LIGHTNING_HEADS
    if a.managed:
        table = bridgetower.MANAGER_HEADS
    if a.image_norms == "per_tap":
        norms = clip.tap_norms(NAMES.image, a.image_layers, a.taps)
    else:
        norms = clip.final_norm(NAMES.image)
    return [
        *text[a.text_encoder](NAMES.text, a.text_layers),
        *clip.openai_clip(NAMES.image, a.image_layers),
        *norms,
        *bridgetower.fusion(a),
        *bridgetower.heads(table, heads),
    ]


def _hyper_parameters(content, path):
    """Return the hyper-parameters in a file, or an empty dict."""
    values = content.get("hyper_parameters", {})
    if isinstance(values, dict):
        values = values.get("config", values)
    if not isinstance(values, dict):
        raise ConversionError(
            "Hyper-parameters must be a dict of plain values.",
            path,
            [f"hyper_parameters={short_plain(values)}"],
        )
    # Only numbers are used. The text of a list in an error could be endless.
    return {
        key: short_plain(value)
        if isinstance(value, (list, tuple, dict))
        else value
        for key, value in values.items()
    }


def _check_sizes(saved, a, path):
    """Reject sizes that contradict the tensors, as when a layer is missing."""
    sizes = {"vocab_size": a.vocabulary_size, "hidden_size": a.hidden_dim}
    if "num_top_layer" not in saved:  # METER's name for it.
        sizes["num_layers"] = a.num_layers
    if a.managed:
        sizes["managed_layers_text"] = a.managed
        sizes["managed_layers_image"] = a.managed
    wrong = [
        f"{key}={short_plain(saved[key])}, but {size} in its tensors"
        for key, size in sizes.items()
        if saved.get(key, size) != size
    ]
    if wrong:
        raise ConversionError(
            "Hyper-parameters must be those with which the weights were "
            "trained. Correct them, or save the state dict alone.",
            path,
            wrong,
        )


def _heads(shapes, a, settings, answers, path):
    """Return the names and constructor values of the heads in a file."""
    heads = architecture.heads(shapes, LAYER_NORM_EPSILON, "two_way")
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
        heads["nlvr2"]["dropout"] = settings["nlvr2_drop_rate"]
    if "vqa" in heads:
        count = heads["vqa"]["num_classes"]
        if answers is not None and len(answers) != count:
            raise ConversionError(
                "`answers` must name every class of the head once, in the "
                "order of training.",
                path,
                [f"{len(answers)} answers, {count} classes"],
            )
        heads["vqa"]["answers"] = answers
    return heads
