"""Scenes of one to three drawings as plain values, and their near misses."""

import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image

COLORS = {
    "red": (214, 40, 40),
    "orange": (245, 130, 20),
    "yellow": (240, 205, 30),
    "green": (50, 160, 60),
    "blue": (40, 90, 215),
    "purple": (135, 60, 180),
    "pink": (240, 120, 180),
    "gray": (130, 130, 130),
}
GROUNDS = {
    "white": (255, 255, 255),
    "black": (25, 25, 25),
    "yellow": (250, 240, 170),
    "green": (190, 235, 190),
    "blue": (185, 215, 250),
    "pink": (250, 205, 225),
    "brown": (150, 110, 75),
    "gray": (195, 195, 195),
}
# The pattern of a ground is never told.
PATTERNS = {
    "training": ("plain", "plain", "stripes", "dots"),
    "validation": ("plain", "checks"),
    "test": ("plain", "checks"),
}
# The relation of two things that a sort tells.
FACT = {"side": "left", "above": "above", "size": "bigger"}
SORTS = ("side", "above", "size", "color", "thing", "ground")
# Least distance and least ratio of sizes for which a caption names a relation.
APART, BIGGER = 0.2, 1.45


class Placed(NamedTuple):
    """A thing of a scene. Lengths are shares of the scene's side."""

    name: str
    x: float  # Of the center, from the left.
    y: float  # Of the center, from the top.
    size: float
    color: str | None  # Of `COLORS`, or as the artist drew it.


class Scene(NamedTuple):
    """All that decides the pixels of a scene."""

    things: tuple  # Of `Placed`.
    artist: str
    ground: str  # Of `GROUNDS`.
    pattern: str

    @property
    def facts(self):
        """All facts that captions may tell."""
        found = {("ground", self.ground)}
        found |= {("there", one.name) for one in self.things}
        found |= {("color", o.name, o.color) for o in self.things if o.color}
        for one, other in itertools.permutations(self.things, 2):
            pair = one.name, other.name
            if other.x - one.x >= APART:
                found.add(("left", *pair))
            if other.y - one.y >= APART:
                found.add(("above", *pair))
            if one.size >= BIGGER * other.size:
                found.add(("bigger", *pair))
        return found

    def relation(self, kind):
        """Return the names of the first two things in this relation, if any."""
        names = {one.name for one in self.things[:2]}
        told = [f[1:] for f in self.facts if f[0] == kind]
        return next((pair for pair in told if set(pair) == names), None)


class World:
    """Makes scenes of the things of a split.

    Args:
        things: list of `Thing`.
        part: `"training"`, `"validation"` or `"test"`.
    """

    def __init__(self, things, part):
        self.part = part
        self.things = {thing.name: thing for thing in things}
        self.names = {}
        for thing in things:
            for artist in thing.drawings:
                self.names.setdefault(artist, []).append(thing.name)
        self.artists = [a for a, names in self.names.items() if len(names) > 9]

    def scene(self, rng, sort=None):
        """Draw a scene whose first two things have a fact of this sort.

        In its near miss the fact is reversed.
        """
        count = int(rng.choice([1, 2, 3], p=[0.1, 0.6, 0.3]))
        if sort in ("side", "above", "size", "color"):
            count = max(2, count)
        artist = str(rng.choice(self.artists))
        names = self.different(artist, count, rng)
        colors = [None] * count
        if sort == "color" or rng.random() < 0.25:
            colors = rng.choice(list(COLORS), count, replace=False)
            colors = [str(color) for color in colors]
        ground = str(rng.choice(list(GROUNDS)))
        pattern = str(rng.choice(PATTERNS[self.part]))
        while True:
            places = _places(rng, count, sort == "size" or rng.random() < 0.4)
            things = tuple(
                Placed(str(name), *place, color)
                for name, place, color in zip(
                    names, places, colors, strict=True
                )
            )
            found = Scene(things, artist, ground, pattern)
            if sort not in FACT:
                return found
            now = found.relation(FACT[sort])
            other = self.near_miss(found, sort, rng).relation(FACT[sort])
            if now and other and now != other:
                return found

    def different(self, artist, count, rng):
        """Draw names of different things that an artist has drawn."""
        return rng.choice(self.names[artist], count, replace=False)

    def near_miss(self, scene, sort, rng):
        """Return a scene in which a fact of this sort does not hold.

        For `"side"` and `"above"` the first two things swap their places, for
        `"size"` their sizes, for `"color"` their colors. For `"thing"` another
        one takes the place of the first, for `"ground"` the ground is another.
        """
        one, other = scene.things[0], scene.things[-1]
        if len(scene.things) > 1:
            other = scene.things[1]
        if sort == "thing":
            changed = [one._replace(name=self._other_name(scene, rng))]
        elif sort == "ground":
            grounds = [g for g in GROUNDS if g != scene.ground]
            return scene._replace(ground=str(rng.choice(grounds)))
        else:
            fields = {"size": ("size",), "color": ("color",)}
            fields = fields.get(sort, ("x", "y"))
            values = [{f: getattr(o, f) for f in fields} for o in (one, other)]
            changed = [one._replace(**values[1]), other._replace(**values[0])]
            changed = [_inside(one) for one in changed]
        rest = scene.things[len(changed) :]
        return scene._replace(things=(*changed, *rest))

    def fewer(self, scene):
        """Return the scene without its last thing."""
        return scene._replace(things=scene.things[:-1])

    def more(self, scene, rng):
        """Return the scene with one more thing, if there is room."""
        for _ in range(50):
            size = rng.uniform(0.28, 0.36)
            x, y = rng.uniform(size / 2, 1 - size / 2, 2)
            places = [(o.x, o.y, o.size) for o in scene.things]
            if _free(places, (x, y, size)):
                name = self._other_name(scene, rng)
                added = Placed(name, float(x), float(y), float(size), None)
                return scene._replace(things=(*scene.things, added))
        return None

    def _other_name(self, scene, rng):
        seen = {one.name for one in scene.things}
        names = [n for n in self.names[scene.artist] if n not in seen]
        return str(rng.choice(names))

    def drawings(self, scene, rng=None):
        """Return the drawing of each thing, varied if there is a generator."""
        found = []
        for one in scene.things:
            drawings = self.things[one.name].drawings
            drawing = drawings[scene.artist]
            if rng is not None:
                others = list(drawings.values())
                drawing = varied(drawing, others, rng, not one.color)
            found.append(drawing)
        return found

    def draw(self, scene, side, drawings=None):
        """Return the pixels of a scene, uint8 `(side, side, 3)`.

        Args:
            scene: `Scene`.
            side: int, pixels.
            drawings: list of uint8 `(64, 64, 4)`, for its things. By default
                those of its artist.
        """
        image = Image.fromarray(ground(scene.ground, scene.pattern, side))
        drawings = drawings or self.drawings(scene)
        for one, drawing in zip(scene.things, drawings, strict=True):
            if one.color:
                drawing = tinted(drawing, COLORS[one.color])
            left, top, size = box(one, side)
            drawn = Image.fromarray(drawing).convert("RGBa")
            drawn = drawn.resize((size, size), Image.BILINEAR).convert("RGBA")
            image.paste(drawn, (left, top), drawn)
        return np.asarray(image)


def box(one, side):
    """Return left, top and size of a thing in pixels."""
    size = round(one.size * side)
    return round(one.x * side - size / 2), round(one.y * side - size / 2), size


def _places(rng, count, differ):
    """Draw centers and sizes of things that do not overlap."""
    while True:
        sizes = rng.uniform(0.34, 0.46, count)
        if differ:
            big = rng.permutation(count) == 0
            sizes = np.where(
                big,
                rng.uniform(0.5, 0.64, count),
                rng.uniform(0.28, 0.34, count),
            )
        found = []
        for size in sizes.tolist():
            x, y = rng.uniform(size / 2, 1 - size / 2, 2).tolist()
            if _free(found, (x, y, size)):
                found.append((x, y, size))
        if len(found) == count:
            return found


def _inside(one):
    """Return a thing moved so that no part of it is cut off."""
    x, y = np.clip((one.x, one.y), one.size / 2, 1 - one.size / 2).tolist()
    return one._replace(x=x, y=y)


def _free(places, new):
    """Return whether a new box overlaps no other, but for its corners."""
    return all(
        max(abs(new[0] - x), abs(new[1] - y)) >= 0.45 * (new[2] + size)
        for x, y, size in places
    )


def varied(drawing, others, rng, mixes):
    """Return a drawing as another artist might have drawn it.

    Args:
        drawing: uint8 `(64, 64, 4)`.
        others: list of drawings of the same thing.
        rng: a generator of NumPy.
        mixes: bool, whether colors are mixed.
    """
    if rng.random() < 0.3:
        share = rng.uniform(0.3, 0.7)
        other = others[rng.integers(len(others))]
        drawing = (share * drawing + (1 - share) * other).astype("uint8")
    if rng.random() < 0.5:
        drawing = drawing[:, ::-1]
    if mixes and rng.random() < 0.4:
        matrix = np.eye(3) + rng.normal(0, 0.15, (3, 3))
        mixed = np.clip(drawing[..., :3] @ matrix, 0, 255).astype("uint8")
        drawing = np.concatenate([mixed, drawing[..., 3:]], axis=-1)
    image = Image.fromarray(np.ascontiguousarray(drawing))
    if rng.random() < 0.2:
        # Flat colors.
        flat = image.convert("RGB").quantize(int(rng.integers(5, 16)))
        image = Image.merge(
            "RGBA", (*flat.convert("RGB").split(), image.split()[3])
        )
    if rng.random() < 0.6:
        a, b = 1 + rng.normal(0, 0.06), rng.normal(0, 0.1)
        d, e = -b, 1 + rng.normal(0, 0.06)
        middle = 31.5
        x, y = middle - middle * (a + b), middle - middle * (d + e)
        image = image.convert("RGBa").transform(
            image.size,
            Image.Transform.AFFINE,
            (a, b, x, d, e, y),
            Image.BILINEAR,
        )
        image = image.convert("RGBA")
    return np.asarray(image)


def blended(one, other, rng):
    """Return a drawing of two others: cut in half, or seen through."""
    if rng.random() < 0.5:
        return ((one.astype("uint16") + other) // 2).astype("uint8")
    axis = rng.integers(2)
    parts = np.split(one, 2, axis)[0], np.split(other, 2, axis)[1]
    return np.concatenate(parts, axis)


def tinted(drawing, color):
    """Return a drawing in shades of one color."""
    light = drawing[..., :3].astype("float32") @ (0.299, 0.587, 0.114) / 255.0
    shades = np.array(color) * (0.45 + 0.75 * light[..., None])
    shades = 0.9 * shades + 0.1 * drawing[..., :3]
    shades = np.clip(shades, 0, 255).astype("uint8")
    return np.concatenate([shades, drawing[..., 3:]], axis=-1)


def ground(color, pattern, side):
    """Return a ground, uint8 `(side, side, 3)`, of two shades of a color."""
    y, x = np.mgrid[:side, :side] * 16 // side
    marks = {
        "plain": x < 0,
        "stripes": (x + y) % 4 < 2,
        "dots": (x % 4 == 1) & (y % 4 == 1),
        "checks": (x // 2 + y // 2) % 2 == 0,
    }[pattern]
    first = np.array(GROUNDS[color], "float32")
    shades = np.where(marks[..., None], 0.93 * first, first)
    return shades.astype("uint8")
