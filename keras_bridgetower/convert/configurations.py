"""Configurations of `transformers`: which model, and its values.

The published files name no model type, those saved again leave out what
equals a default, and the first ones call some values by the authors' names.
"""

import re

from keras_bridgetower.convert import config_table
from keras_bridgetower.convert.errors import ConversionError

# What tells BridgeTower from CLIP, which has two encoders alone; any of them.
LINKED = {
    "link_tower_type",
    "link_tower_shared",
    "share_link_tower_layers",
    "share_cross_modal_transformer_layers",
    "cross_modal_transform_shared",
}
# The model type by the start of their classes' names.
CLASSES = {
    "BridgeTower": "bridgetower",
    "Roberta": "roberta",
    "Bert": "bert",
    "CLIP": "clip",
    "CLIPVision": "clip_vision_model",
    "ViT": "vit",
    "DeiT": "deit",
}
# Their defaults, which their files may leave out.
TOP, TEXT, VISION = map(config_table.defaults, ("top", "text", "vision"))
# The authors' names of values, which the first published files have.
OLDER = {
    "share_link_tower_layers": "link_tower_shared",
    "share_cross_modal_transformer_layers": "cross_modal_transform_shared",
    "share_layernorm": "vit_layernorm_shared",
    "remove_last_layer": "vit_remove_last",
}
_SIZES = dict(
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
)
_TEXT = dict(_SIZES, max_position_embeddings=512)
_IMAGE = dict(_SIZES, image_size=224)
# Sizes of encoders alone, by model type.
ENCODERS = {
    "roberta": dict(_TEXT, vocab_size=50_265),
    "bert": dict(_TEXT, vocab_size=30_522),
    "clip": dict(_IMAGE, patch_size=32),
    "clip_vision_model": dict(_IMAGE, patch_size=32),
    "vit": dict(_IMAGE, patch_size=16),
    "deit": dict(_IMAGE, patch_size=16),
}


def kind_of(config, tensors=()):
    """The model type of a configuration.

    Args:
        config: dict, the values of a `config.json`.
        tensors: names of the tensors beside it, where they are known; they
            alone tell DeiT from ViT where a configuration names neither.

    Returns:
        str: as the configuration names it, by its `model_type` or its
        `architectures`, else as its parts tell; None where they do not.
    """
    if config.get("model_type"):
        return config["model_type"]
    if config.get("architectures"):
        return CLASSES.get(_class_of(config["architectures"]))
    parts = {name for name, value in config.items() if isinstance(value, dict)}
    if {"text_config", "vision_config"} <= parts:
        return "bridgetower" if LINKED & set(config) else "clip"
    if {"patch_size", "image_size"} <= set(config):
        if config.get("hidden_act") == "quick_gelu":
            return "clip_vision_model"
        distilled = any(k.endswith("distillation_token") for k in tensors)
        return "deit" if distilled else "vit"
    if {"vocab_size", "max_position_embeddings"} <= set(config):
        rows = config.get("type_vocab_size")
        return "roberta" if rows == 1 else "bert" if rows == 2 else None
    return None


def named(config):
    """What a configuration says about its kind, for errors; list of str."""
    return [
        f"{name}={config[name]!r:.100}"
        for name in ("model_type", "architectures")
        if config.get(name)
    ]


def _class_of(architectures):
    """`Roberta` of `["RobertaForMaskedLM"]`."""
    name = str(architectures[0] if isinstance(architectures, list) else "")
    return re.sub(r"(Model|LMHead|For[A-Z]).*", "", name)


def require(config, path, kinds, hint=""):
    """Refuse a configuration of another model.

    Args:
        config: dict, the values of a `config.json`.
        path: path of the file.
        kinds: collection of the model types that are right.
        hint: str, a sentence for the error.

    Returns:
        str: the model type.

    Raises:
        ConversionError: it names another model, or has the parts of none.
    """
    kind = kind_of(config)
    if isinstance(kind, str) and kind in kinds:
        return kind
    raise ConversionError(
        f"The folder must hold a model of type {', '.join(kinds)}.{hint}",
        path,
        named(config)
        or [f"model_type=None, parts {', '.join(sorted(config))!r:.200}"],
    )


def bridgetower(config, path):
    """The three levels of a BridgeTower configuration, types checked.

    Args:
        config: dict, the values of a `config.json`.
        path: path of the file.

    Returns:
        `(top, text, vision)`: dicts with all keys of `TOP`, `TEXT` and
        `VISION`.

    Raises:
        ConversionError: values of other types, or two that deny each other.
    """
    levels = [
        (config, TOP, "the top level"),
        (part(config, "text_config"), TEXT, "text_config"),
        (part(config, "vision_config"), VISION, "vision_config"),
    ]
    complete, wrong = [], []
    for given, defaults, level in levels:
        if not isinstance(given, dict):
            given, wrong = {}, [*wrong, f"{level} is no object"]
        given, twice = _by_newer_names(given)
        wrong += [f"{pair} in {level}" for pair in twice]
        values = {key: given.get(key, defaults[key]) for key in defaults}
        wrong += [
            f"{key}={value!r:.50} in {level}"
            for key, value in values.items()
            if not _of_type(value, defaults[key])
        ]
        complete.append(values)
    if wrong:
        raise ConversionError(
            "A configuration must have values of transformers' types.",
            path,
            wrong,
        )
    return complete


def part(config, name):
    """A part of a configuration, by either of its names; a dict if right."""
    return config.get(name) or config.get(f"{name}_dict") or {}


def _by_newer_names(given):
    """The values by today's names, and those that are given twice."""
    renamed, twice = dict(given), []
    for name, older in OLDER.items():
        if older in given:
            value = renamed.setdefault(name, given[older])
            if value != given[older]:
                twice.append(f"{name}={value!r:.50}, {older} otherwise")
    return renamed, twice


def _of_type(value, default):
    """Whether a value has the type of a default; a float may be whole."""
    if isinstance(default, float) and type(value) is int:
        return True
    return type(value) is type(default)


def sizes(config, path, kind, *names):
    """Sizes of an encoder alone, or their defaults.

    Args:
        config: dict, the values of a `config.json`, or of a part of it.
        path: path of the file.
        kind: str, a key of `ENCODERS`.
        *names: the sizes that are asked for.

    Returns:
        list of int.

    Raises:
        ConversionError: they are no positive whole numbers.
    """
    values = [config.get(name, ENCODERS[kind][name]) for name in names]
    wrong = [
        f"{name}={value!r:.50}"
        for name, value in zip(names, values, strict=True)
        if type(value) is not int or value < 1
    ]
    if wrong:
        raise ConversionError(
            "A configuration must give its sizes as whole numbers.", path, wrong
        )
    return values


def epsilon(config, path, default):
    """The epsilon of an encoder's norms, or its default.

    Raises:
        ConversionError: it is no number between 0 and 1.
    """
    value = config.get("layer_norm_eps", default)
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ConversionError(
            "A configuration must give a number between 0 and 1.",
            path,
            [f"layer_norm_eps={value!r:.50}"],
        )
    return value


def require_epsilon(config, path, own, default):
    """Refuse norms whose epsilon KerasHub cannot be told.

    Args:
        config: dict, values of a `config.json`.
        path: its path, for errors.
        own: float, what KerasHub's encoder has in its norms.
        default: float, what transformers takes where none is named.

    Raises:
        ConversionError: another one.
    """
    if epsilon(config, path, default) != own:
        raise ConversionError(
            f"The encoder's norms must have the epsilon {own}, the only one "
            "of KerasHub's. Where the weights were trained with it, write it "
            "into the configuration.",
            path,
            [f"layer_norm_eps={config.get('layer_norm_eps')!r}"],
        )
