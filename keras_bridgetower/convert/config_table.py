"""The table of values in a BridgeTower `config.json` of `transformers`.

It has three uses: it gives the defaults when a folder is read, it compares a
configuration with the weights, and export writes a configuration from it.
"""

import dataclasses
from collections.abc import Callable

from keras_bridgetower.convert.rules.layouts import PADDING_ROWS

# How a value is checked. `MEASURED`: it must agree with the shapes of the
# weights. `FIXED`: it must be the default, since nothing else can be built.
# `SHARE`: it must be at least 0 and less than 1.
MEASURED, FIXED, SHARE = "measured", "fixed", "share"
# Our names of the bridges, by those of `transformers`.
LINKS = {
    "add": "add",
    "scaled_add": "scaled_add",
    "interpolate": "interpolate_scalar",
}
TRANSFORMERS_LINKS = {ours: theirs for theirs, ours in LINKS.items()}


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a configuration.

    Args:
        key: str, its key in `config.json`.
        default: the value that transformers uses if the key is absent.
        ours: the value to write: the name of a field of an `Architecture`, or
            a function of it. If None, the default is written.
        check: `MEASURED`, `FIXED`, `SHARE`, or None.
        sets: names of the `Architecture` fields that get the value when a
            folder is read.
        claimed: function of all values of the level that returns the value to
            compare with the weights. If None, the value itself is compared.
        measured: as `ours`, the value of the weights. If None, `ours`.
    """

    key: str
    default: object
    ours: str | Callable | None = None
    check: str | None = None
    sets: tuple = ()
    claimed: Callable | None = None
    measured: str | Callable | None = None


TABLE = {
    "top": (
        Value("hidden_size", 768, "hidden_dim", MEASURED),
        Value("num_hidden_layers", 6, "num_layers", MEASURED),
        Value("num_attention_heads", 12, "num_heads"),
        Value(
            "link_tower_type",
            "add",
            lambda a: TRANSFORMERS_LINKS[a.bridge],
            MEASURED,
            claimed=lambda values: LINKS.get(values["link_tower_type"]),
            measured="bridge",
        ),
        Value("share_link_tower_layers", False, check=FIXED),
        Value(
            "share_cross_modal_transformer_layers",
            True,
            lambda a: a.projections == "shared",
            MEASURED,
        ),
        Value("tie_word_embeddings", False),
        Value(
            "layer_norm_eps",
            1e-5,
            "bridge_epsilon",
            SHARE,
            ("bridge_epsilon",),
        ),
        Value("hidden_act", "gelu"),
    ),
    "text": (
        Value("vocab_size", 50_265, "vocabulary_size", MEASURED),
        Value("hidden_size", 768, "text_width", MEASURED),
        Value("num_hidden_layers", 12, "text_layers", MEASURED),
        # transformers builds its cross-modal layers from the text values.
        Value(
            "num_attention_heads",
            12,
            "text_heads",
            None,
            ("text_heads", "num_heads"),
        ),
        Value("intermediate_size", 3072, "intermediate_dim", MEASURED),
        Value("intermediate_size", 3072, "text_intermediate", MEASURED),
        Value("hidden_act", "gelu", check=FIXED),
        Value(
            "hidden_dropout_prob",
            0.1,
            "dropout",
            SHARE,
            ("text_dropout", "dropout"),
        ),
        Value(
            "attention_probs_dropout_prob",
            0.1,
            "attention_dropout",
            None,
            ("attention_dropout",),
        ),
        Value(
            "max_position_embeddings",
            514,
            lambda a: a.positions + PADDING_ROWS,
            MEASURED,
        ),
        Value("type_vocab_size", 1, check=FIXED),
        Value(
            "layer_norm_eps", 1e-5, check=FIXED, sets=("layer_norm_epsilon",)
        ),
        Value("pad_token_id", 1, check=FIXED),
    ),
    "vision": (
        Value("hidden_size", 768, "image_width", MEASURED),
        Value(
            "num_hidden_layers",
            12,
            "image_layers",
            MEASURED,
            claimed=lambda values: (
                values["num_hidden_layers"] - values["remove_last_layer"]
            ),
        ),
        Value("num_channels", 3),
        Value("patch_size", 16, "patch_size", MEASURED),
        # transformers ignores pixels beyond the last whole patch.
        Value(
            "image_size",
            288,
            "image_size",
            MEASURED,
            claimed=lambda values: (
                values["image_size"] // max(values["patch_size"], 1)
            ),
            measured=lambda a: a.image_size // a.patch_size,
        ),
        Value("layer_norm_eps", 1e-5, check=FIXED),
        Value("share_layernorm", True),
        Value("remove_last_layer", False),
    ),
}


def defaults(level):
    """Return the default values of a level, by key."""
    return {value.key: value.default for value in TABLE[level]}


def values_for(level, architecture):
    """Return the values of a level for an `Architecture`, in file order."""
    return {
        value.key: _value(architecture, value.ours, value.default)
        for value in TABLE[level]
    }


def architecture_fields(levels):
    """Return the `Architecture` fields that only a configuration gives.

    Args:
        levels: dict from the keys of `TABLE` to the values of a level.

    Returns:
        dict from the name of a field to its value.
    """
    return {
        field: levels[level][value.key]
        for level, table in TABLE.items()
        for value in table
        for field in value.sets
    }


def contradictions(levels, measured):
    """Find values that contradict the weights, or that cannot be built.

    Args:
        levels: as for `architecture_fields`.
        measured: the `Architecture` of the weights.

    Returns:
        list of str, one sentence part for each value.
    """
    values = [
        (value, levels[level], _name(value, level))
        for level, table in TABLE.items()
        for value in table
    ]
    return [
        text
        for kind, check in _CHECKS.items()
        for value, given, name in values
        if value.check == kind
        for text in check(value, given, name, measured)
    ]


def _value(architecture, place, default=None):
    """Return the field or the result of a function of an `Architecture`."""
    if place is None:
        return default
    if callable(place):
        return place(architecture)
    return getattr(architecture, place)


def _check_measured(value, given, name, measured):
    claimed = value.claimed(given) if value.claimed else given[value.key]
    found = _value(measured, value.measured or value.ours)
    if claimed != found:
        yield f"{name}: {claimed}, but {found} in the weights"


def _check_fixed(value, given, name, measured):
    claimed = given[value.key]
    if claimed != value.default:
        yield f"{name}={claimed!r}, only {value.default} can be built"


def _check_share(value, given, name, measured):
    claimed = given[value.key]
    if not 0 <= claimed < 1:
        yield f"{name}={claimed}, not between 0 and 1"


_CHECKS = {MEASURED: _check_measured, FIXED: _check_fixed, SHARE: _check_share}


def _name(value, level):
    return value.key if level == "top" else f"{level} {value.key}"
