"""The table of presets that can be opened by name.

`table.json` has those of this package. Other distributions add theirs by an
entry point of the group `keras_bridgetower.presets`, whose value is a package
with such a table and the folders of its presets.
"""

import dataclasses
import difflib
import importlib.metadata
import importlib.util
import os
import pathlib
import warnings

from keras_bridgetower.files import read_json


@dataclasses.dataclass(frozen=True)
class Preset:
    """Facts about a preset that are known before it is opened.

    Args:
        name: str, its name in `from_preset`.
        description: str, one sentence.
        knows: str, the pictures and words that it was trained on. On others
            it only guesses.
        parameters: int, number of parameters, including heads.
        image_size: int, side of its images in pixels.
        heads: tuple of str, names of its heads.
        tasks: tuple of str, names of the task classes whose heads it has.
        reranks: bool, whether matching improves the lists of its contrastive
            head, so that a search reranks by default.
        similarity_weight: float, factor of the cosine similarity that a search
            adds to the score of the matching head, to rerank.
        handle: str, handle of the published preset, or None if it is in the
            package.
        sha256: str, first digits of the SHA-256 of the published weights, in
            hexadecimal.
        folder: str, its folder in the package if that is not its name:
            presets that differ only by their head share one.
        root: str, the folder of the distribution that has the preset, or None
            for this package.
    """

    name: str
    description: str
    knows: str
    parameters: int
    image_size: int
    heads: tuple
    tasks: tuple
    reranks: bool = True
    similarity_weight: float = 0.0
    handle: str | None = None
    sha256: str | None = None
    folder: str | None = None
    root: str | None = None

    @property
    def path(self):
        """`pathlib.Path` of its folder, or None if it is downloaded."""
        if self.handle:
            return None
        return pathlib.Path(self.root or HERE, self.folder or self.name)


HERE = pathlib.Path(__file__).parent
TABLE = "table.json"
# Questions and texts about the pictures in the folder `examples`.
EXAMPLES = "examples.json"
# Entry points of distributions with presets.
GROUP = "keras_bridgetower.presets"
# Prefixes of names of presets, and the folders of their distributions.
DISTRIBUTIONS = {"bridgetower_small_photo_": "preset_packages/photos"}
# Prefixes of the names of presets that are opened by default: the first that is
# installed.
FAMILIES = (*DISTRIBUTIONS, "bridgetower_tiny_emoji_")


def _read(folder, root=None):
    """Return the presets in the table of a folder."""
    found = {}
    for name, row in read_json(pathlib.Path(folder, TABLE)).items():
        parts = {key: tuple(row[key]) for key in ("heads", "tasks")}
        found[name] = Preset(name, **{**row, **parts, "root": root})
    return found


def installed():
    """Return the presets of other distributions, without running their code."""
    found = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            spec = importlib.util.find_spec(point.value)
            (root,) = spec.submodule_search_locations
            found |= _read(root, root=root)
        except Exception as error:  # A broken package must not stop others.
            warnings.warn(
                f"The presets of the entry point {point.name!r} could not be "
                f"read: {type(error).__name__}: {error!s:.200}",
                stacklevel=2,
            )
    return found


# Other distributions cannot replace a preset of this one.
PRESETS = installed() | _read(HERE)
# The folders of installed presets.
ROOTS = {
    pathlib.Path(os.path.realpath(preset.root or HERE))
    for preset in PRESETS.values()
}


def default_family():
    """Return the start of the names of the presets opened by default.

    It is `"bridgetower_small_photo_"` if the distribution of those presets is
    installed, else `"bridgetower_tiny_emoji_"`.

    Example:

    ```python
    import keras_bridgetower as kbt

    vqa = kbt.BridgeTowerVQA.from_preset(kbt.default_family() + "vqa")
    ```
    """
    return next(filter(_is_installed, FAMILIES))


def first_examples(preset=None):
    """Return pictures and texts to try presets with.

    They are in the folder `examples` beside the table of a distribution.

    Args:
        preset: str, the name of a preset, for the examples of its
            distribution. By default, and for presets without examples, those
            of the default presets.

    Returns:
        dict from `"ask"`, `"match"`, `"search"`, `"fill"` and `"look"` to a
        list of `(picture, text)`, a `pathlib.Path` and a str. The picture is
        None beside a text that matches none. `"pictures"` has all pictures
        and their names.

    Example:

    ```python
    import keras_bridgetower as kbt

    vqa = kbt.BridgeTowerVQA.from_preset(kbt.default_family() + "vqa")
    for picture, question in kbt.first_examples()["ask"]:
        print(picture.name, question, vqa.answer(picture, question))
    ```
    """
    folder = _example_folder(preset)
    return {
        use: [(name and folder / name, text) for name, text in rows]
        for use, rows in read_json(folder / EXAMPLES).items()
    }


def _example_folder(preset):
    family = default_family()
    default = next(p for n, p in PRESETS.items() if n.startswith(family))
    chosen = PRESETS.get(preset, default)
    if chosen.handle:  # Published, without pictures.
        chosen = default
    folder = pathlib.Path(chosen.root or HERE, "examples")
    return folder if (folder / EXAMPLES).is_file() else HERE / "examples"


def not_installed():
    """Return a dict of the commands, in a clone, that install other presets.

    Its keys are the prefixes of the presets' names.
    """
    return {
        start: f"pip install ./{folder}"
        for start, folder in DISTRIBUTIONS.items()
        if not _is_installed(start)
    }


def _is_installed(start):
    return any(name.startswith(start) for name in PRESETS)


def shipped_with(heads):
    """Return the names of installed presets with one of some heads.

    Those of `FAMILIES` come first, then the others in the order of the table.

    Args:
        heads: tuple of str.
    """
    names = [
        name
        for name, preset in PRESETS.items()
        if set(heads) & set(preset.heads) and preset.handle is None
    ]
    return sorted(
        names,
        key=lambda name: [not name.startswith(start) for start in FAMILIES],
    )


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
    """Return a hint for an unknown name: a command or similar names."""
    for start, command in not_installed().items():
        if name.startswith(start):
            return f"Install it in a clone: `{command}`. "
    near = difflib.get_close_matches(name, PRESETS, 3, 0.6)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def preset_name(preset):
    """Return the name of a preset that is valid in every folder and process.

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
    """
    named = PRESETS.get(preset) if isinstance(preset, str) else None
    return named if named and named.folder else None


def named_heads(preset, saved):
    """Return the part of `saved`, a folder's heads, that belongs to a preset.

    Args:
        preset: as in `from_preset`.
        saved: dict with the names of all heads of its folder as keys.
    """
    named = sharing(preset)
    if named is None:
        return saved
    return {name: saved[name] for name in named.heads if name in saved}
