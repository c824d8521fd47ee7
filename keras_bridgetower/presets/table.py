"""The table of presets that can be opened by name.

`table.json` has the published ones. Distributions add theirs by an entry point
of the group `keras_bridgetower.presets`, whose value is a package with such a
table and the folders of its presets.
"""

import collections
import contextlib
import dataclasses
import difflib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import warnings

from packaging.utils import canonicalize_name

from keras_bridgetower.files import Below
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
        reranks: bool, True if its card shows that matching improves the lists
            of its contrastive head: then a search reranks by default.
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
    reranks: bool = False
    similarity_weight: int | float = 0.0
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
DISTRIBUTIONS = {
    "bridgetower_small_photo_": "preset_packages/photos",
    "bridgetower_tiny_": "preset_packages/drawings",
}
# Prefixes of the names of presets that are opened by default: the first that is
# installed.
FAMILIES = ("bridgetower_small_photo_", "bridgetower_tiny_emoji_")
# Bytes of a table or of examples; those of the drawings have 5,000.
_LARGEST = 1_000_000
_NAME = re.compile(r"\w[\w.-]*")


def _read(folder, root=None):
    """Return the presets in the table of a folder."""
    found = {}
    rows = read_json(pathlib.Path(folder, TABLE), _LARGEST, nan=False)
    for name, row in rows.items():
        lists = {k: tuple(v) for k, v in row.items() if isinstance(v, list)}
        found[name] = Preset(name, root=root, **row | lists)
    return found


def _check(preset):
    """Raise a ValueError if a distribution has a wrong value of a preset."""
    wrong = [
        field.name
        for field in dataclasses.fields(preset)[:-1]  # All but `root`.
        if not isinstance(value := getattr(preset, field.name), field.type)
        or not _is_plain(value)
    ]
    if (
        wrong
        or preset.handle
        or not _NAME.fullmatch(preset.name)
        or Below(preset.root).leads_out(preset.folder or preset.name)
    ):
        wrong = ", ".join(wrong) or "name, folder or handle"
        raise ValueError(f"{preset.name!r:.80} has a wrong {wrong}")


def _is_plain(value):
    """Return True for printable texts, and for numbers that a model has."""
    if isinstance(value, tuple):
        return all(isinstance(x, str) and x.isprintable() for x in value)
    if isinstance(value, str):
        return value.isprintable()
    return value is None or 0 <= value < 10**15


def _folder(distribution, package):
    """Return the folder of a package of a distribution, not importing it."""
    first, *rest = package.split(".")
    if not all(map(str.isidentifier, (first, *rest))):
        raise ValueError(f"an entry point names no package: {package:.80}")
    folder = distribution.locate_file(first)
    if not os.path.isdir(folder):  # It is installed as editable.
        (folder,) = importlib.util.find_spec(first).submodule_search_locations
    return os.path.join(folder, *rest)


def _examples(folder):
    """Return what `first_examples` returns, of one folder."""
    found, examples = {}, read_json(folder / EXAMPLES, _LARGEST)
    for use in ("ask", "match", "search", "fill", "look", "pictures"):
        rows = found[use] = []
        for name, text in examples[use]:
            if name and name != pathlib.PurePath(name).name:
                raise ValueError(f"{EXAMPLES} names a file elsewhere: {name}")
            rows.append((name and folder / name, str(text)))
    return found


def _read_distribution(distribution):
    """Return the presets of a distribution, by name.

    Raises:
        Exception: its files are damaged.
    """
    found = {}
    points = distribution.entry_points.select(group=GROUP)
    for folder in sorted({_folder(distribution, x.value) for x in points}):
        presets = _read(folder, root=folder)
        if found.keys() & presets:
            raise ValueError("two of its tables have a preset of the same name")
        found |= presets
        examples = pathlib.Path(folder, "examples")
        if (examples / EXAMPLES).is_file():
            _examples(examples)
    for preset in found.values():
        _check(preset)
    return found


def _others():
    """Return the presets of other distributions, by distribution and name.

    A distribution that cannot be read is left out with a warning.
    """
    found = {}
    for distribution in importlib.metadata.distributions():
        name = None
        try:
            if GROUP in (distribution.read_text("entry_points.txt") or ""):
                name = canonicalize_name(distribution.metadata["Name"])
                # The first one in `sys.path` hides others of its name.
                if name not in found:
                    found[name] = {}
                    found[name] = _read_distribution(distribution)
        except Exception as error:
            where = str(distribution.locate_file(""))
            with contextlib.suppress(Exception):
                name = distribution.metadata["Name"]
            warnings.warn(
                f"The presets of the distribution {name!r} in {where!r} could "
                "not be read, as its entry points, table or examples are "
                f"damaged: {type(error).__name__}: {error!s:.200}. Install it "
                "again, or uninstall it.",
                stacklevel=3,
            )
    return found


def installed():
    """Return the presets of other distributions, without running their code.

    A name that another distribution or this package has too is left out with a
    warning.
    """
    owners = collections.defaultdict(dict)
    tables = _others() | {"keras-bridgetower": _read(HERE)}
    for distribution, presets in tables.items():
        for name, preset in presets.items():
            owners[name].setdefault(preset, distribution)
    twice = {n: sorted(of.values()) for n, of in owners.items() if len(of) > 1}
    if twice:
        warnings.warn(
            "Several distributions have presets of the same name: "
            f"{str(twice):.500}. Uninstall all but one of them. Until then "
            "only those of keras-bridgetower can be opened.",
            stacklevel=2,
        )
    alone = [preset for of in owners.values() if len(of) == 1 for preset in of]
    return {preset.name: preset for preset in alone if preset.root}


# Other distributions cannot replace a preset of this one.
PRESETS = installed() | _read(HERE)
# The folders of installed presets.
ROOTS = {
    pathlib.Path(os.path.realpath(preset.root or HERE))
    for preset in PRESETS.values()
}


def default_family():
    """Return the start of the names of the presets opened by default.

    It is `"bridgetower_tiny_emoji_"` if only the distribution of those presets
    is installed, else `"bridgetower_small_photo_"`.

    Example:

    ```python
    import keras_bridgetower as kbt

    vqa = kbt.BridgeTowerVQA.from_preset(kbt.default_family() + "vqa")
    ```
    """
    return next(filter(_is_installed, FAMILIES), FAMILIES[0])


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
    family = default_family()
    defaults = (p for name, p in PRESETS.items() if name.startswith(family))
    for chosen in (PRESETS.get(preset), *defaults, *PRESETS.values()):
        if chosen and chosen.root:
            folder = pathlib.Path(chosen.root, "examples")
            if (folder / EXAMPLES).is_file():
                return _examples(folder)
    raise ValueError(
        "Pictures to try come with presets, and none is installed. Install "
        f"some in a clone: {' or '.join(not_installed().values())}."
    )


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
