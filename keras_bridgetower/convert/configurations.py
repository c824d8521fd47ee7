"""Reads and writes values of a `config.json` of `transformers`.

The values of a BridgeTower folder are compared with those that export would
write for the architecture of its weights.
"""

import re

from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.encoders.layouts import PADDING_ROWS
from keras_bridgetower.encoders.registry import files_by_type
from keras_bridgetower.presets.errors import ConversionError

# By level, the default of transformers, for values that a file omits, and the
# field of an `Architecture` with the value, or None.
VALUES = {
    "top": dict(
        hidden_size=(768, "hidden_dim"),
        num_hidden_layers=(6, "num_layers"),
        num_attention_heads=(12, "num_heads"),
        link_tower_type=("add", None),
        share_link_tower_layers=(False, None),
        share_cross_modal_transformer_layers=(True, None),
        tie_word_embeddings=(False, None),
        layer_norm_eps=(1e-5, "bridge_epsilon"),
        hidden_act=("gelu", None),
    ),
    # transformers builds its cross-modal layers from the text values.
    "text": dict(
        vocab_size=(50_265, "vocabulary_size"),
        hidden_size=(768, "text_width"),
        num_hidden_layers=(12, "text_layers"),
        num_attention_heads=(12, "text_heads"),
        intermediate_size=(3072, "text_intermediate"),
        hidden_act=("gelu", None),
        hidden_dropout_prob=(0.1, "dropout"),
        attention_probs_dropout_prob=(0.1, "attention_dropout"),
        max_position_embeddings=(514, None),
        type_vocab_size=(1, None),
        layer_norm_eps=(1e-5, None),
        pad_token_id=(1, None),
        is_decoder=(False, None),
    ),
    "vision": dict(
        hidden_size=(768, "image_width"),
        num_hidden_layers=(12, "image_layers"),
        num_channels=(3, None),
        patch_size=(16, "patch_size"),
        image_size=(288, "image_size"),
        layer_norm_eps=(1e-5, None),
        share_layernorm=(True, None),
        remove_last_layer=(False, None),
    ),
}
DEFAULTS = {
    level: {key: default for key, (default, _) in values.items()}
    for level, values in VALUES.items()
}
# Values that may differ, because transformers or this library ignores them.
FREE = {
    "top": {"num_attention_heads", "hidden_act", "tie_word_embeddings"},
    "text": set(),
    "vision": {"num_channels", "share_layernorm", "remove_last_layer"},
}
# The authors' names of values, which the oldest published files use.
OLD_NAMES = {
    "share_link_tower_layers": "link_tower_shared",
    "share_cross_modal_transformer_layers": "cross_modal_transform_shared",
    "share_layernorm": "vit_layernorm_shared",
    "remove_last_layer": "vit_remove_last",
}
# transformers' names of the bridges.
LINKS = {
    "add": "add",
    "scaled_add": "scaled_add",
    "interpolate_scalar": "interpolate",
}


def values_for(architecture):
    """Return the values for an `Architecture`, by level, in file order."""
    levels = {}
    for level, values in VALUES.items():
        levels[level] = {
            key: getattr(architecture, field) if field else default
            for key, (default, field) in values.items()
        }
    shared = architecture.projections == "shared"
    levels["top"]["link_tower_type"] = LINKS.get(architecture.bridge)
    levels["top"]["share_cross_modal_transformer_layers"] = shared
    positions = architecture.positions + PADDING_ROWS
    levels["text"]["max_position_embeddings"] = positions
    return levels


def architecture_fields(levels):
    """Return the `Architecture` fields that only a configuration gives."""
    text = levels["text"]
    return dict(
        bridge_epsilon=levels["top"]["layer_norm_eps"],
        layer_norm_epsilon=text["layer_norm_eps"],
        text_heads=text["num_attention_heads"],
        num_heads=text["num_attention_heads"],
        text_dropout=text["hidden_dropout_prob"],
        dropout=text["hidden_dropout_prob"],
        attention_dropout=text["attention_probs_dropout_prob"],
    )


def contradictions(levels, architecture):
    """List the values that differ from those of an `Architecture`."""
    expected = values_for(architecture)
    return [
        f"{level} {key}={value!r}, but {expected[level][key]!r} in the weights"
        for level, values in levels.items()
        for key, value in values.items()
        if key not in FREE[level] and value != expected[level][key]
    ]


def read_levels(config, path):
    """Read the three levels of a BridgeTower configuration, and check types.

    Args:
        config: dict, the values of a `config.json`.
        path: path of the file.

    Returns:
        dict from the levels to dicts with all keys of `DEFAULTS`.
    """
    levels, wrong = {}, []
    for level, defaults in DEFAULTS.items():
        name = f"{level}_config"
        values = config.get(name) or config.get(f"{name}_dict") or {}
        values = config if level == "top" else values
        if not isinstance(values, dict):
            values, wrong = {}, [*wrong, f"{level}_config is no object"]
        older = {k: values[v] for k, v in OLD_NAMES.items() if v in values}
        values = defaults | older | values
        levels[level] = {key: values[key] for key in defaults}
        wrong += [
            f"{level} {key}={values[key]!r:.50}"
            for key, default in defaults.items()
            if not _has_type(values[key], default)
        ]
    if wrong:
        raise ConversionError(
            "A configuration must have values of transformers' types.",
            path,
            wrong,
        )
    vision = levels["vision"]
    # transformers ignores pixels beyond the last whole patch.
    vision["image_size"] -= vision["image_size"] % max(vision["patch_size"], 1)
    vision["num_hidden_layers"] -= vision["remove_last_layer"]
    return levels


def model_type(config):
    """Return the model type of a configuration, or None if it is unknown."""
    if config.get("model_type"):
        return config["model_type"]
    if config.get("architectures"):
        # `RobertaForMaskedLM` is a class of RoBERTa.
        name = str(config["architectures"]).strip("[]'")
        name = re.sub(r"(Model|LMHead|For[A-Z]).*", "", name).lower()
        return {"clipvision": "clip_vision_model"}.get(name, name)
    # The published files of BridgeTower have neither.
    links = any("link_tower" in key for key in config)
    return "bridgetower" if links else None


def require_type(config, path, kinds, hint=""):
    """Return the model type of a configuration, which must be one of `kinds`.

    Args:
        config: dict, the values of a `config.json`.
        path: path of the file.
        kinds: collection of str, the allowed model types.
        hint: str, a sentence that is added to the error.

    Raises:
        ConversionError: the type is another one, or unknown.
    """
    kind = model_type(config)
    if isinstance(kind, str) and kind in kinds:
        return kind
    raise ConversionError(
        f"The folder must hold a model of type {', '.join(kinds)}.{hint}",
        path,
        [
            f"{name}={config.get(name)!r:.100}"
            for name in ("model_type", "architectures")
        ],
    )


def read_encoder(folder, side):
    """Read the configuration of an encoder in a `transformers` folder.

    Args:
        folder: `pathlib.Path`.
        side: `"image"` or `"text"`.

    Returns:
        `(kind, config)`: the model type, and the values of the encoder: the
        first nested part that is there, or the whole.
    """
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    types = files_by_type(side)
    kind = require_type(config, path, types)
    _, files = types[kind]
    parts = map(config.get, files.parts)
    return kind, next((p for p in parts if isinstance(p, dict)), config)


def _has_type(value, default):
    """Return True for the type of the default; an int may be a float."""
    if isinstance(default, float) and type(value) is int:
        return True
    return type(value) is type(default)
