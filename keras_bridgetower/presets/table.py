"""The table of presets that can be opened by name."""

import dataclasses
import difflib
import os
import pathlib

from keras_bridgetower.files import read_json


@dataclasses.dataclass(frozen=True)
class Preset:
    """Facts about a preset that are known before it is opened.

    Args:
        name: str, its name in `from_preset`.
        description: str, one sentence.
        knows: str, the pictures and words that it was trained on. On others
            it only guesses.
        parameters: int, number of parameters, heads included.
        image_size: int, side of its images in pixels.
        heads: tuple of str, names of its heads.
        tasks: tuple of str, names of the task classes whose heads it has.
        handle: str, handle of the published preset, or None if it is in the
            package.
        sha256: str, first digits of the SHA-256 of the published weights, in
            hexadecimal.
        folder: str, its folder in the package if that is not its name:
            presets that differ only by their head share one.
    """

    name: str
    description: str
    knows: str
    parameters: int
    image_size: int
    heads: tuple
    tasks: tuple
    handle: str | None = None
    sha256: str | None = None
    folder: str | None = None


# The start of the names of the presets that are opened by default.
DEFAULT_FAMILY = "bridgetower_tiny_emoji_"


def _read():
    rows = read_json(pathlib.Path(__file__).with_suffix(".json"))
    for name, row in rows.items():
        parts = {key: tuple(row[key]) for key in ("heads", "tasks")}
        yield name, Preset(name, **{**row, **parts})


PRESETS = dict(_read())


def shipped_with(heads):
    """Return the names of presets in the package with one of some heads.

    Presets of `DEFAULT_FAMILY` come first, then the order of the table.

    Args:
        heads: tuple of str.
    """
    names = [
        name
        for name, preset in PRESETS.items()
        if set(heads) & set(preset.heads) and preset.handle is None
    ]
    return sorted(names, key=lambda name: not name.startswith(DEFAULT_FAMILY))


class PresetsOf:
    """Descriptor: the presets of a class, as dict from name to `Preset`."""

    def __get__(self, instance, cls):
        every = cls.__name__ == "BridgeTowerBackbone"
        return {
            name: p
            for name, p in PRESETS.items()
            if every or p.handle or cls.__name__ in p.tasks
        }


def did_you_mean(name):
    """Return a question that names the presets nearest to a typo, or ""."""
    near = difflib.get_close_matches(name, PRESETS, 3, 0.6)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def preset_name(preset):
    """Return the name of a preset that holds in every folder and process.

    Args:
        preset: as in `from_preset`, or a `PresetFolder`.
    """
    name = os.fspath(getattr(preset, "root", preset))
    if name in PRESETS or not os.path.exists(name):
        return name
    return os.path.abspath(name)


def sharing(preset):
    """Return the `Preset` of a name that shares a folder, or None.

    Such a folder has the heads of several presets, and was saved as the task
    of one of them.

    Args:
        preset: as in `from_preset`.
    """
    named = PRESETS.get(preset) if isinstance(preset, str) else None
    return named if named and named.folder else None


def named_heads(preset, saved):
    """Return the heads of a folder that belong to a preset.

    Args:
        preset: as `from_preset` takes it.
        saved: dict with the names of all heads of its folder as keys.

    Returns:
        dict, a part of `saved`.
    """
    named = sharing(preset)
    if named is None:
        return saved
    return {name: saved[name] for name in named.heads if name in saved}
