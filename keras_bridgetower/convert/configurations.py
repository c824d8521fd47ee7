"""Reads the `config.json` of a `transformers` model: its type and its values.

Files differ. Published ones do not name a model type. Files that were
saved again omit values that equal the defaults. The oldest ones use the
authors' names for some values.
"""

import re

from keras_bridgetower.checks import is_integer
from keras_bridgetower.convert import config_table
from keras_bridgetower.presets.errors import ConversionError

# Keys that BridgeTower has and CLIP, which also has two encoders, does not.
BRIDGE_KEYS = {
    "link_tower_type",
    "link_tower_shared",
    "share_link_tower_layers",
    "share_cross_modal_transformer_layers",
    "cross_modal_transform_shared",
}
# Model types by the first part of a class name of transformers.
CLASSES = {
    "BridgeTower": "bridgetower",
    "Roberta": "roberta",
    "Bert": "bert",
    "CLIP": "clip",
    "CLIPVision": "clip_vision_model",
    "ViT": "vit",
    "DeiT": "deit",
}
# Defaults of transformers, for values that a file omits.
TOP, TEXT, VISION = map(config_table.defaults, ("top", "text", "vision"))
# The authors' names of values, which the oldest published files use.
OLD_NAMES = {
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
# Default sizes of uni-modal models, by model type.
ENCODERS = {
    "roberta": dict(_TEXT, vocab_size=50_265),
    "bert": dict(_TEXT, vocab_size=30_522),
    "clip": dict(_IMAGE, patch_size=32),
    "clip_vision_model": dict(_IMAGE, patch_size=32),
    "vit": dict(_IMAGE, patch_size=16),
    "deit": dict(_IMAGE, patch_size=16),
}


def model_type(config, tensors=()):
    """Find the model type of a configuration.

    Args:
        config: dict, the values of a `config.json`.
        tensors: names of the tensors in the weight file, if known. Only they
            tell DeiT from ViT if the configuration names neither.

    Returns:
        str, from `model_type` or `architectures` if the configuration has
        one of them, otherwise from its keys. None if it is unknown.
    """
    if config.get("model_type"):
        return config["model_type"]
    if config.get("architectures"):
        return CLASSES.get(_first_word(config["architectures"]))
    parts = {name for name, value in config.items() if isinstance(value, dict)}
    if {"text_config", "vision_config"} <= parts:
        return "bridgetower" if BRIDGE_KEYS & set(config) else "clip"
    if {"patch_size", "image_size"} <= set(config):
        if config.get("hidden_act") == "quick_gelu":
            return "clip_vision_model"
        distilled = any(k.endswith("distillation_token") for k in tensors)
        return "deit" if distilled else "vit"
    if {"vocab_size", "max_position_embeddings"} <= set(config):
        rows = config.get("type_vocab_size")
        return "roberta" if rows == 1 else "bert" if rows == 2 else None
    return None


def model_names(config):
    """List the entries that name the model, for errors."""
    return [
        f"{name}={config[name]!r:.100}"
        for name in ("model_type", "architectures")
        if config.get(name)
    ]


def _first_word(architectures):
    """Return `Roberta` for `["RobertaForMaskedLM"]`."""
    name = str(architectures[0] if isinstance(architectures, list) else "")
    return re.sub(r"(Model|LMHead|For[A-Z]).*", "", name)


def require_type(config, path, kinds, hint=""):
    """Check that a configuration is of one of some model types.

    Args:
        config: dict, the values of a `config.json`.
        path: path of the file.
        kinds: collection of str, the allowed model types.
        hint: str, a sentence that is added to the error.

    Returns:
        str: the model type.

    Raises:
        ConversionError: the type is another one, or unknown.
    """
    kind = model_type(config)
    if isinstance(kind, str) and kind in kinds:
        return kind
    raise ConversionError(
        f"The folder must hold a model of type {', '.join(kinds)}.{hint}",
        path,
        model_names(config)
        or [f"model_type=None, parts {', '.join(sorted(config))!r:.200}"],
    )


def read_levels(config, path):
    """Read the three levels of a BridgeTower configuration, and check types.

    Args:
        config: dict, the values of a `config.json`.
        path: path of the file.

    Returns:
        `(top, text, vision)`: dicts with all keys of `TOP`, `TEXT` and
        `VISION`.

    Raises:
        ConversionError: a value has a wrong type.
    """
    levels = [
        (config, TOP, "the top level"),
        (nested_values(config, "text_config"), TEXT, "text_config"),
        (nested_values(config, "vision_config"), VISION, "vision_config"),
    ]
    complete, wrong = [], []
    for given, defaults, level in levels:
        if not isinstance(given, dict):
            given, wrong = {}, [*wrong, f"{level} is no object"]
        older = {
            name: given[old] for name, old in OLD_NAMES.items() if old in given
        }
        given = older | given
        values = {key: given.get(key, defaults[key]) for key in defaults}
        wrong += [
            f"{key}={value!r:.50} in {level}"
            for key, value in values.items()
            if not _has_type(value, defaults[key])
        ]
        complete.append(values)
    if wrong:
        raise ConversionError(
            "A configuration must have values of transformers' types.",
            path,
            wrong,
        )
    return complete


def nested_values(config, name):
    """Return a nested part, whose name may end in `_dict`; {} if absent."""
    return config.get(name) or config.get(f"{name}_dict") or {}


def _has_type(value, default):
    """Return True for the type of the default; an int may be a float."""
    if isinstance(default, float) and type(value) is int:
        return True
    return type(value) is type(default)


def sizes(config, path, kind, *names):
    """Read sizes of a uni-modal encoder, with their defaults.

    Args:
        config: dict, the values of a `config.json`, or of a part of it.
        path: path of the file.
        kind: str, a key of `ENCODERS`.
        *names: str, keys of the wanted sizes.

    Returns:
        list of int.

    Raises:
        ConversionError: a size is not a positive whole number.
    """
    values = [config.get(name, ENCODERS[kind][name]) for name in names]
    wrong = [
        f"{name}={value!r:.50}"
        for name, value in zip(names, values, strict=True)
        if not is_integer(value) or value < 1
    ]
    if wrong:
        raise ConversionError(
            "A configuration must give its sizes as whole numbers.", path, wrong
        )
    return values


def epsilon(config, path, default):
    """Read the epsilon of an encoder's norms, or take its default.

    Raises:
        ConversionError: it is not a number from 0 to below 1.
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
    """Check that the epsilon is the one that KerasHub's encoder has.

    Args:
        config: dict, values of a `config.json`.
        path: its path, for errors.
        own: float, the fixed epsilon of KerasHub's encoder.
        default: float, the epsilon of transformers if the file names none.

    Raises:
        ConversionError: the configuration has another epsilon.
    """
    if epsilon(config, path, default) != own:
        raise ConversionError(
            f"The encoder's norms must have the epsilon {own}, the only one "
            "that KerasHub supports. If the weights were trained with it, "
            "write it into the configuration.",
            path,
            [f"layer_norm_eps={config.get('layer_norm_eps')!r}"],
        )
