"""Read emoji from the packages: names, keywords, groups and drawings."""

import collections
import io
import json
import pathlib
import re
from typing import NamedTuple

import numpy as np
import resvg_py
from PIL import Image

# Who drew (nearly) all of them; training never saw the last.
ARTISTS = ("noto", "fluent", "flat", "twemoji")
UNSEEN_ARTIST = "twemoji"
# Who drew a part of them, for training alone.
MORE_ARTISTS = ("emojione", "fxemoji", "blobs", "streamline")
TRAINING_ARTISTS = (*ARTISTS[:3], *MORE_ARTISTS)
# For a test of its own: no training and no choice saw it.
OTHER_VENDOR = "openmoji"
SIDE = 64


class Emoji(NamedTuple):
    """One emoji."""

    code: str  # Code points in hexadecimal, as "1F600".
    name: str  # In lower case, as "grinning face".
    keywords: tuple  # In lower case, without the name.
    group: str  # As "smileys & emotion".
    kind: str  # The smaller group, as "face-smiling".
    files: dict  # From artist to the path of the drawing.


def load(folders):
    """Read all emoji but the five skin tones, in Unicode's order."""
    folders = {key: pathlib.Path(path) for key, path in folders.items()}
    facts = {
        _key(row["hexcode"]): row
        for row in _json(folders["names"] / "package/en/data.json")
    }
    titles = _json(folders["names"] / "package/en/messages.json")
    groups = {row["order"]: row["message"] for row in titles["groups"]}
    kinds = {row["order"]: row["key"] for row in titles["subgroups"]}
    more_words = {
        symbol.replace("\ufe0f", ""): words
        for symbol, words in _json(
            folders["keywords"] / "package/dist/emoji-en-US.json"
        ).items()
    }
    by_code = {
        artist: {
            _key(path.stem): path
            for path in (folders[artist] / "package/assets").iterdir()
        }
        for artist in ("fluent", "flat")
    }
    rows = _json(folders["noto"] / "package/emoji.json")
    found = []
    for row in rows:
        fact = facts[_key(row["unified"])]
        group = groups.get(fact.get("group"))
        if group in (None, "components"):
            continue
        code = _key(row["unified"])
        files = {
            artist: folders[artist] / f"package/img/{maker}/64" / row["image"]
            for artist, maker in (("noto", "google"), ("twemoji", "twitter"))
        }
        for artist, paths in by_code.items():
            if code in paths:
                files[artist] = paths[code]
        name = _plain(fact["label"])
        words = [
            *fact.get("tags", []),
            *more_words.get(fact["emoji"].replace("\ufe0f", ""), []),
        ]
        words = dict.fromkeys(_plain(word) for word in words)
        keywords = tuple(w for w in words if w and w != name)
        kind = kinds[fact["subgroup"]]
        one = Emoji(code, name, keywords, group, kind, files)
        found.append((fact["order"], one))
    emoji = [one for _, one in sorted(found, key=lambda pair: pair[0])]
    names = _all_names(emoji, rows, folders["names"])
    for artist in (*MORE_ARTISTS, OTHER_VENDOR):
        drawn = icon_drawings(folders[artist], names)
        for number, path in drawn.items():
            emoji[number].files[artist] = path
    return emoji


def _all_names(emoji, rows, folder):
    others = collections.defaultdict(list)
    for row in rows:
        others[_key(row["unified"])] += [row["name"], *row["short_names"]]
    lists = folder / "package/en/shortcodes"
    for path in sorted(lists.glob("*.json")):
        for code, names in _json(path).items():
            others[_key(code)] += [names] if isinstance(names, str) else names
    return [[one.name, *others[one.code]] for one in emoji]


def drawing(emoji, artist):
    """Return the drawing of an artist, uint8 `(64, 64, 4)`, or None."""
    if artist not in emoji.files:
        return None
    image = _opened(emoji.files[artist]).convert("RGBA")
    if image.size != (SIDE, SIDE):
        # Weighted by opacity, so that no color of the invisible comes in.
        image = image.convert("RGBa").resize((SIDE, SIDE), Image.LANCZOS)
    return np.asarray(image.convert("RGBA"))


def _opened(path):
    if path.suffix != ".svg":
        return Image.open(path)
    size = {"width": SIDE, "height": SIDE}
    drawn = resvg_py.svg_to_bytes(svg_path=str(path), **size)
    return Image.open(io.BytesIO(drawn))


def on_white(drawing):
    """Return a drawing on white paper, uint8 `(..., 64, 64, 3)`."""
    opacity = drawing[..., 3:] / 255.0
    paper = drawing[..., :3] * opacity + 255.0 * (1.0 - opacity)
    return np.rint(paper).astype("uint8")


def _json(path):
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def _key(code):
    return code.upper().replace("-FE0F", "")


def _plain(text):
    """Return a text in lower case without typographic signs."""
    text = text.lower().replace("_", " ").replace("\u2019", "'")
    return re.sub(r"\s+", " ", re.sub("[\u201c\u201d]", "", text)).strip()


def icon_drawings(folder, names):
    """Write the drawings of an icon set, and return paths by emoji number.

    Such a set is one JSON file with the inner part of an SVG for each name. Its
    names are those of older lists, so an emoji is found by any of its names.
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
    """Return by emoji the first of its names that only it has in the set."""
    by_name = {}
    for icon in icons:
        by_name.setdefault(_letters(icon), icon)
    uses = collections.Counter(
        name for several in names for name in {_letters(n) for n in several}
    )
    found = {}
    for number, several in enumerate(names):
        first, *others = map(_letters, several)
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


def _letters(name):
    """Return the letters and digits of a name, as `"flagfrance"`."""
    name = re.sub("^flag-for-(flag-)?", "flag", name.lower())
    name = re.sub(r"(?<=[a-z])-\d$", "", name)  # "cactus-1", "cactus-2".
    return re.sub("[^a-z0-9]", "", name)
