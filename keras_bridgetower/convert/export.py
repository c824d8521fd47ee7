"""Exports backbones and tasks as folders that `transformers` opens."""

import pathlib
import warnings
from typing import NamedTuple

import keras
import safetensors.numpy

from keras_bridgetower.backend import layer_records
from keras_bridgetower.convert import bridgetower
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import processors
from keras_bridgetower.convert import transformers_folder as theirs
from keras_bridgetower.convert.architecture import from_backbone
from keras_bridgetower.convert.checkpoint import to_tensors
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.encoders.clip import HEAD_WIDTH
from keras_bridgetower.encoders.layouts import PADDING_ROWS
from keras_bridgetower.files import write_folder
from keras_bridgetower.models import head_table
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.heads import LOGIT_SCALE
from keras_bridgetower.preprocessing import image_converter
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.errors import ConversionError

WEIGHTS = "model.safetensors"
HEAD = "head.safetensors"
# The epsilon of KerasHub's RoBERTa. transformers uses the text encoder's
# epsilon in the cross-modal layers too.
TEXT_EPSILON = 1e-5


class Parts(NamedTuple):
    """The parts of a model to export.

    Args:
        backbone: a `BridgeTowerBackbone`.
        heads: dict or `HeadSet`, from names to heads.
        values: dict from the names of heads to their constructor values.
        tokenizer: a `BridgeTowerTokenizer`, or None.
        image_converter: a `BridgeTowerImageConverter`, or None.
    """

    backbone: object
    heads: object
    values: dict
    tokenizer: object
    image_converter: object


def export_model(model, path):
    """Write a `BridgeTowerBackbone` or a task as a `transformers` folder.

    Args:
        model: the backbone or task.
        path: path of a folder that does not exist yet. If anything fails, it
            is not created.
    """
    preprocessor = getattr(model, "preprocessor", None)
    parts = Parts(
        getattr(model, "backbone", model),
        getattr(model, "heads", {}),
        getattr(model, "head_values", {}),
        getattr(preprocessor, "tokenizer", None),
        getattr(preprocessor, "image_converter", None),
    )
    write(parts, path)


def parts_of_preset(preset):
    """Open a preset and return its parts, with all of its heads."""
    folder = registry.open_preset(preset)
    backbone = BridgeTowerBackbone.from_preset(folder)
    values = head_table.saved_heads(folder)
    heads = head_table.make_all(values, backbone, (values, None))
    if values:
        weights_file.load_heads(heads, list(values), folder)
    tokenizer, converter = (
        cls.from_preset(folder) if folder.has(file) else None
        for cls, file in (
            (packed_tokenizer.PackedTokenizer, packed_tokenizer.CONFIG),
            (image_converter.BridgeTowerImageConverter, image_converter.CONFIG),
        )
    )
    return Parts(backbone, heads, values, tokenizer, converter)


def write(parts, path, name="path"):
    """Write a new folder that `transformers` opens.

    Args:
        parts: `Parts`.
        path: path of a folder that does not exist yet.
        name: str, the argument with the path, for errors.

    Raises:
        ConversionError: transformers cannot run this architecture.
        ValueError: the model is quantized, or the folder exists.
    """
    write_folder(
        path, lambda folder: _write(parts, pathlib.Path(folder)), name=name
    )


def _write(parts, folder):
    backbone, values = parts.backbone, parts.values
    for model in (backbone, *(parts.heads[name] for name in values)):
        layer_records.check_not_quantized(model, "An export to transformers")
    architecture = _checked_architecture(parts)
    known = {k: v for k, v in values.items() if k in theirs.CLASSES}
    layers = [backbone] + [parts.heads[name] for name in known]
    tensors = to_tensors(
        theirs.rules(architecture, known),
        variables_by_path(*layers, encoder=backbone.image_encoder),
        _exported_extra(backbone.extra),
    )
    heads = tuple(
        rule.keys[0].partition(".")[0]
        for rule in bridgetower.heads(bridgetower.TRANSFORMERS_HEADS, known)
    )
    prefix = theirs.PREFIX if known else ""
    tensors = {
        key if key.startswith(heads) else f"{prefix}{key}": value
        for key, value in tensors.items()
    }
    safetensors.numpy.save_file(
        tensors, folder / WEIGHTS, metadata={"format": "pt"}
    )
    registry.write_json(folder, "config.json", _config(architecture, known))
    processors.write(folder, parts.tokenizer, parts.image_converter)
    _write_other_heads(parts, values.keys() - known.keys(), folder)


def _checked_architecture(parts):
    """Return the `Architecture` of a model that transformers can run."""
    backbone, heads = parts.backbone, parts.values
    fusion, tokenizer = backbone.fusion, parts.tokenizer
    text, image = backbone.text_encoder, backbone.image_encoder
    # transformers has no managers.
    requirements = [
        ("bridge", fusion.bridge, tuple(configurations.LINKS)),
        ("text encoder", type(text).__name__, ("RobertaBackbone",)),
        ("image encoder", type(image).__name__, ("CLIPVisionEncoder",)),
    ]
    if tokenizer is not None:
        kind = type(tokenizer).__name__
        requirements.append(("tokenizer", kind, ("BridgeTowerTokenizer",)))
    _require(requirements)
    a = from_backbone(backbone)
    requirements = [
        ("taps", fusion.taps, (a.taps,)),
        ("image_taps", backbone.image_tower.taps, (a.taps,)),
        ("cross_encoder", fusion.cross_encoder, ("co_attention",)),
        ("image_norms", a.image_norms, ("shared",)),
        ("image_tokens", fusion.image_tokens, (None,)),
        ("hidden_dim", a.hidden_dim, (a.text_width,)),
        ("num_heads", a.num_heads, (a.text_heads,)),
        ("intermediate_dim", a.intermediate_dim, (a.text_intermediate,)),
        ("image blocks", a.image_layers, (a.text_layers,)),
        # transformers computes them by this division.
        ("image heads", image.num_heads, (a.image_width // HEAD_WIDTH,)),
        ("image FFN width", a.image_intermediate, (4 * a.image_width,)),
        # transformers counts positions from the tokens that are not padding.
        ("pad_token_id", getattr(tokenizer, "pad_token_id", 1), (1,)),
    ]
    # transformers has no names for heads of users.
    requirements += [
        ("head", name, tuple(bridgetower.LIGHTNING_HEADS)) for name in heads
    ]
    if "itc" in heads:
        requirements += [
            ("ways", heads["itc"]["ways"], ("three_way",)),
            ("projections", a.projections, ("shared",)),
        ]
    _require(requirements)
    if a.layer_norm_epsilon != TEXT_EPSILON:
        warnings.warn(
            "transformers has one epsilon for text encoder and cross-modal "
            f"layers, {TEXT_EPSILON}: it will run the exported model with it, "
            f"not with layer_norm_epsilon={a.layer_norm_epsilon}, and outputs "
            "will differ slightly.",
            stacklevel=2,
        )
    return a


def _require(requirements):
    """Raise unless each value, between its name and a tuple, is in it."""
    wrong = [
        f"{name}={value!r}, not one of {allowed}"
        for name, value, allowed in requirements
        if value not in allowed
    ]
    if wrong:
        raise ConversionError(
            "transformers cannot run this architecture.", "the model", wrong
        )


def _exported_extra(extra):
    """Return the unused tensors for which transformers has a place."""
    kept, text = {}, theirs.NAMES.text
    for name, value in extra.items():
        name = name.replace("text_transformer.", text, 1)
        known = name.startswith(text) and "position_ids" not in name
        if known or f"[:{PADDING_ROWS}]" in name:
            kept[name] = value
    return kept


def _config(a, heads):
    classes = [theirs.CLASSES[name] for name in heads] or [theirs.MODEL]
    epsilon = heads.get("mlm", {}).get("epsilon", a.bridge_epsilon)
    if epsilon != a.bridge_epsilon:
        warnings.warn(
            "transformers has one epsilon for bridges and the masked language "
            f"head, {a.bridge_epsilon}: it will run the exported head with it.",
            stacklevel=3,
        )
    levels = configurations.values_for(a)
    config = {
        "architectures": classes,
        "model_type": "bridgetower",
        **levels["top"],
        "dtype": "float32",
        "text_config": {
            "model_type": "bridgetower_text_model",
            **levels["text"],
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "bridgetower_vision_model",
            **levels["vision"],
        },
    }
    if "itc" in heads:
        config["contrastive_hidden_size"] = heads["itc"]["projection_dim"]
        config["logit_scale_init_value"] = LOGIT_SCALE
    return config


def _write_other_heads(parts, names, folder):
    """Write the heads that transformers lacks, with the authors' names."""
    if not names:
        return
    tensors = {}
    for name in names:
        table = bridgetower.heads(
            bridgetower.LIGHTNING_HEADS, {name: parts.values[name]}
        )
        variables = variables_by_path(parts.heads[name])
        tensors |= to_tensors(table, variables, {})
    if "nlvr2" in names:
        fusion = parts.backbone.fusion
        types = keras.ops.convert_to_numpy(fusion.type_embedding)
        tensors["token_type_embeddings.weight"] = types.astype("float32")
    safetensors.numpy.save_file(tensors, folder / HEAD)
    warnings.warn(
        f"transformers has no class for the head {', '.join(sorted(names))}: "
        f"the folder holds a {theirs.MODEL}, and the head in {HEAD}.",
        stacklevel=4,
    )
