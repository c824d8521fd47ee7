"""Drawings of further artists, from icon sets that name them in words.

Such a set is one JSON file with the inner part of an SVG for each name.
Names are those of older lists, so an emoji is found by any of its names.
"""

import collections
import json
import re


def drawings(folder, names):
    """Which emoji a set draws; each drawing becomes a file once.

    Args:
        folder: path of the unpacked package.
        names: list of lists of str, the names of each emoji, best first.

    Returns:
        dict from the number of an emoji to the path of an SVG file.
    """
    made = folder / "svg"
    made.mkdir(exist_ok=True)
    icons = json.loads((folder / "package/icons.json").read_text())
    size = {side: icons.get(side, 16) for side in ("width", "height")}
    found = {}
    for number, icon in _owners(icons["icons"], names).items():
        found[number] = path = made / f"{icon}.svg"
        if not path.exists():
            path.write_text(_svg(size | icons["icons"][icon]))
    return found


def _owners(icons, names):
    """By emoji the first of its names that the set and no other emoji has."""
    by_name = {}
    for icon in icons:
        by_name.setdefault(_plain(icon), icon)
    uses = collections.Counter(
        name for several in names for name in {_plain(n) for n in several}
    )
    found = {}
    for number, several in enumerate(names):
        first, *others = map(_plain, several)
        wanted = [first, *(name for name in others if uses[name] == 1)]
        here = [by_name[name] for name in wanted if name in by_name]
        if here:
            found[number] = here[0]
    return found


def _svg(icon):
    width, height = icon["width"], icon["height"]
    left, top = icon.get("left", 0), icon.get("top", 0)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _plain(name):
    """`"flag-for-france"`, `"flag: france"`: letters and digits alone."""
    name = re.sub("^flag-for-(flag-)?", "flag", name.lower())
    name = re.sub(r"(?<=[a-z])-\d$", "", name)  # "cactus-1", "cactus-2".
    return re.sub("[^a-z0-9]", "", name)
