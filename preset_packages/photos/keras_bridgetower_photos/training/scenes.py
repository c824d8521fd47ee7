"""Draw scenes: things on photographs or paper, and their facts."""

import functools
from typing import NamedTuple

import numpy as np
from keras_bridgetower_drawings.training.reports import draw
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter
from PIL import ImageOps

from keras_bridgetower_photos.training import painting
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

# Sorts of scenes, and how often each is drawn.
SHARES = {
    "alone": 0.26,
    "beside": 0.18,
    "larger": 0.11,
    "before": 0.11,
    "several": 0.11,
    "different": 0.09,
    "photograph": 0.14,
}
# In training some things are larger than the picture.
TRAINING_SHARES = SHARES | {"close": 0.14}
# Paper, as the red, green and blue of a color word.
PAPERS = {
    "white": (250, 250, 248),
    "gray": (150, 150, 152),
    "black": (18, 18, 20),
    "red": (196, 36, 40),
    "yellow": (244, 214, 60),
    "green": (60, 150, 74),
    "blue": (52, 104, 190),
    "pink": (244, 168, 196),
    "brown": (122, 82, 52),
}
# Of a thing that is covered, this share stays in sight at least.
IN_SIGHT = 0.6
# These have no writing on them and may be mirrored.
MIRRORED = ("animal", "food", "plant")


class Placed(NamedTuple):
    """A thing in a scene, or a photograph that is the whole scene."""

    thing: things.Thing
    box: tuple  # Left, top, right and bottom in pixels.

    @property
    def middle(self):
        return (self.box[0] + self.box[2]) / 2

    @property
    def length(self):
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    @property
    def area(self):
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


class Scene(NamedTuple):
    """A picture and what is true of it."""

    picture: np.ndarray  # uint8 `(side, side, 3)`.
    sort: str  # One of `SHARES`.
    placed: tuple  # Of `Placed`, from left to right.
    front: int  # Which of two things covers a part of the other, or -1.
    background: things.Photograph | None
    paper: str  # The color of the paper, or "" on a photograph.
    world: things.World  # What scenes of this split may show.

    def size(self, number):
        """Return `"small"`, `"large"`, or `""` for what is between."""
        if self.sort == "photograph":
            return ""
        share = self.placed[number].length / len(self.picture)
        return "large" if share >= 0.6 else "small" if share <= 0.34 else ""

    def position(self, number):
        """Return `"left"`, `"middle"`, `"right"`, or `""` if none is clear."""
        if self.sort in ("photograph", "several"):
            return ""
        share = self.placed[number].middle / len(self.picture)
        if 0.45 <= share <= 0.55:
            return "middle"
        return "left" if share <= 0.36 else "right" if share >= 0.64 else ""

    def is_left(self, one, other):
        """Return True if a thing is clearly to the left of another."""
        ahead = self.placed[other].middle - self.placed[one].middle
        return ahead >= 0.2 * len(self.picture)

    def is_larger(self, one, other):
        """Return True if a thing is clearly larger than another."""
        one, other = self.placed[one], self.placed[other]
        longer = one.length >= 1.5 * other.length
        return longer and one.area >= 2.2 * other.area

    def larger(self):
        """Return the number of the clearly larger one of two, or None."""
        if len(self.placed) != 2 or self.sort == "several":
            return None
        return next((n for n in (0, 1) if self.is_larger(n, 1 - n)), None)

    def neighbors(self):
        """Return all pairs of neighbors if their order is clear, or none."""
        numbers = range(len(self.placed) - 1)
        clear = all(self.is_left(n, n + 1) for n in numbers)
        if self.sort == "several" or not clear:
            return []
        return [(n, n + 1) for n in numbers]


class Scenes:
    """Draws scenes of one split.

    Up to `kept` decoded files are cached. A share of the things is `painted`.
    """

    def __init__(
        self, world, split, side=224, shares=SHARES, kept=1000, painted=0.0
    ):
        self.world = things.World(
            *(tuple(o for o in ones if o.split == split) for ones in world)
        )
        self.side = side
        self.shares, self.painted = shares, painted
        self._places = [p for p in self.world.photographs if p.place]
        self._cut_out = functools.lru_cache(kept)(self._read_cut_out)
        self._photograph = functools.lru_cache(kept)(self._read_photograph)

    def draw(self, rng, sort=None):
        """Draw a scene by a NumPy generator, of a sort if one is given."""
        shares = np.array(list(self.shares.values()))
        if sort is None:
            sort = rng.choice(list(self.shares), p=shares / shares.sum())
        return getattr(self, f"_draw_{sort}")(rng)

    def whole(self, photograph, rng=None):
        """Return a photograph as a scene: cropped by chance, or its middle."""
        image = self._photograph(photograph)
        if rng is not None:
            image = _cropped(image, rng, 0.8)
            if things.BROAD[photograph.kind] in MIRRORED:
                image = _mirrored(image, rng)
            image = lit(image, rng)
        image = ImageOps.fit(image, (self.side, self.side), Image.BICUBIC)
        placed = (Placed(photograph, (0, 0, self.side, self.side)),)
        return Scene(
            np.asarray(image), "photograph", placed, -1, None, "", self.world
        )

    def _draw_photograph(self, rng):
        return self.whole(draw(self.world.photographs, rng), rng)

    def _draw_alone(self, rng):
        thing = self._thing(self.world.things, rng)
        ground = self._ground(rng, [thing])
        if rng.random() < 0.4:
            length = self.side * rng.uniform(0.8, 0.98)
        else:
            length = self.side * rng.uniform(0.25, 0.75)
        shape = self._shape(thing, (length, length), rng)
        return ground.scene("alone", [self._free(thing, shape, ground, rng)])

    def _draw_close(self, rng):
        thing = self._thing(self.world.things, rng)
        ground = self._ground(rng, [thing])
        # Of the longer side, so that much of a long thing is left out.
        length = self.side * rng.uniform(1.05, 1.8)
        shape = self._shape(thing, (length, length), rng)
        shape = _window(shape, self.side, rng)
        free = (rng.random() * (self.side - length) for length in shape.size)
        return ground.scene("alone", [(thing, shape, *free)])

    def _draw_beside(self, rng):
        return self._row("beside", self._different_things(2, rng), rng)

    def _draw_different(self, rng):
        number = 3 if rng.random() < 0.7 else 4
        return self._row("different", self._different_things(number, rng), rng)

    def _draw_several(self, rng):
        countable = [t for t in self.world.things if words.is_countable(t.noun)]
        number = int(rng.integers(2, 5))
        return self._row("several", [self._thing(countable, rng)] * number, rng)

    def _row(self, sort, chosen, rng):
        """Place things side by side, each in its part of the width."""
        ground = self._ground(rng, chosen)
        width = self.side / len(chosen)
        pieces = []
        for number, thing in enumerate(chosen):
            room = width * rng.uniform(0.8, 1.0), self.side * 0.9
            shape = self._shape(thing, room, rng)
            left = number * width + rng.random() * (width - shape.width)
            pieces.append((thing, shape, left, ground.top(shape, rng)))
        return ground.scene(sort, pieces)

    def _draw_larger(self, rng):
        chosen = self._different_things(2, rng)
        ground = self._ground(rng, chosen)
        large = self.side * rng.uniform(0.5, 0.64)
        small = self.side * rng.uniform(0.2, 0.32)
        lengths = (large, small) if rng.random() < 0.5 else (small, large)
        shapes = [
            self._shape(thing, (length, length), rng)
            for thing, length in zip(chosen, lengths, strict=True)
        ]
        free = self.side - sum(shape.width for shape in shapes)
        first, between = rng.dirichlet((1, 1, 1))[:2] * max(free, 0)
        lefts = first, first + shapes[0].width + between
        pieces = [
            (thing, shape, left, ground.top(shape, rng))
            for thing, shape, left in zip(chosen, shapes, lefts, strict=True)
        ]
        return ground.scene("larger", pieces)

    def _draw_before(self, rng):
        back, front = self._different_things(2, rng)
        ground = self._ground(rng, [back, front])
        length = self.side * rng.uniform(0.5, 0.7)
        behind = self._shape(back, (length, length), rng)
        place = self._free(back, behind, ground, rng)[2:]
        length *= rng.uniform(0.45, 0.95)
        # Where too much would be hidden, what is in front is smaller.
        for _ in range(4):
            before = self._shape(front, (length, length), rng)
            nearer = self._place_before(behind, place, before, rng)
            if nearer is not None:
                pieces = [(back, behind, *place), (front, before, *nearer)]
                return ground.scene("before", pieces, front=1)
            length *= 0.75
        return self._draw_before(rng)

    def _place_before(self, behind, place, before, rng):
        """Draw a place that leaves enough of what is behind in sight."""
        left, top = place
        middle = left + behind.width / 2
        side = 1 if middle < self.side / 2 else -1
        low = top + behind.height - before.height + rng.uniform(0, 12)
        reach = (behind.width + before.width) / 2
        # From near the middle outward.
        for step in np.linspace(rng.uniform(0, 0.4), 0.9, 8):
            x = middle - before.width / 2 + side * reach * step
            nearer = self._inside(x, low, before)
            if _in_sight(behind, place, before, nearer) >= IN_SIGHT:
                return nearer
        return None

    def _inside(self, left, top, shape):
        return (
            min(max(left, 0), self.side - shape.width),
            min(max(top, 0), self.side - shape.height),
        )

    def _thing(self, choices, rng):
        """Draw a thing, which may be painted."""
        thing = draw(choices, rng)
        if self.painted and rng.random() < self.painted:
            return painting.painted(thing, rng)
        return thing

    def _different_things(self, number, rng):
        """Draw things none of which can be called what another is called."""
        chosen = [self._thing(self.world.things, rng)]
        near = [t for t in self.world.things if _broad(t) == _broad(chosen[0])]
        pool = near if rng.random() < 0.4 else self.world.things
        for _ in range(50 * number):
            if len(chosen) == number:
                return chosen
            other = self._thing(pool, rng)
            if all(words.are_apart(other, thing) for thing in chosen):
                chosen.append(other)
            else:
                pool = self.world.things
        raise ValueError(f"There are no {number} different things to draw.")

    def _shape(self, thing, room, rng):
        """Return the cut-out, varied and scaled to fit `(width, height)`."""
        shape = self._cut_out(thing)
        if _broad(thing) in MIRRORED:
            shape = _mirrored(shape, rng)
        if rng.random() < 0.5:
            turn = float(np.clip(rng.normal(0, 4), -9, 9))
            shape = shape.rotate(turn, Image.BILINEAR, expand=True)
            shape = shape.crop(visible_box(shape))
        scale = min(room[0] / shape.width, room[1] / shape.height)
        size = [max(round(scale * length), 1) for length in shape.size]
        shape = shape.resize(size, Image.BICUBIC)
        opacity = shape.getchannel("A")
        if rng.random() < 0.5:
            blur = ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9))
            opacity = opacity.filter(blur)
        if thing.paint:
            shape = painting.paint(shape, thing.paint, rng)
        shape = lit(shape.convert("RGB"), rng)
        shape.putalpha(opacity)
        return shape

    def _free(self, thing, shape, ground, rng):
        left = rng.random() * (self.side - shape.width)
        return thing, shape, left, ground.top(shape, rng)

    def _ground(self, rng, shown):
        """Draw a photograph of a place, or paper, below the things."""
        if self._places and rng.random() < 0.6:
            background = draw(self._places, rng)
            image = _cropped(self._photograph(background), rng, 0.6)
            image = lit(_mirrored(image, rng), rng)
            size = (self.side, self.side)
            image = ImageOps.fit(image, size, Image.BILINEAR)
            return _Ground(image, background, "", self.world, rng)
        hidden = {thing.color for thing in shown if thing.color != "white"}
        colors = [color for color in PAPERS if color not in hidden]
        color = "white" if rng.random() < 0.35 else draw(colors, rng)
        image = paper(color, self.side, rng)
        return _Ground(image, None, color, self.world, rng)

    def _read_cut_out(self, thing):
        shape = things.cut_out(thing)
        shape = shape.crop(visible_box(shape))
        shape.thumbnail((self.side, self.side), Image.BICUBIC)
        return shape

    def _read_photograph(self, photograph):
        image = things.picture(photograph)
        short = min(image.size)
        if short > 1.4 * self.side:
            scale = 1.4 * self.side / short
            size = [round(scale * length) for length in image.size]
            image = image.resize(size, Image.BICUBIC, reducing_gap=2)
        return image


class _Ground:
    """A photograph of a place, or paper, below the things."""

    def __init__(self, image, background, color, world, rng):
        self.image = image
        self.background = background
        self.color = color
        self.world = world
        self.shadow = rng.uniform(0.15, 0.4) if rng.random() < 0.4 else 0
        self.fall = rng.uniform(-5, 5)

    def top(self, shape, rng):
        """Draw how far down a thing is: on a photograph rather low."""
        free = self.image.height - shape.height
        return free * (rng.beta(4, 1.3) if self.background else rng.random())

    def scene(self, sort, pieces, front=None):
        """Paste the pieces, the first one farthest back."""
        image, placed = self.image.copy(), []
        for thing, shape, *place in pieces:
            left, top = map(round, place)
            if self.shadow:
                self._darken(image, shape, left, top)
            image.paste(shape, (left, top), shape)
            x, y, right, bottom = visible_box(shape)
            box = (x + left, y + top, right + left, bottom + top)
            placed.append(Placed(thing, box))
        order = sorted(range(len(placed)), key=lambda n: placed[n].middle)
        return Scene(
            np.asarray(image),
            str(sort),
            tuple(placed[n] for n in order),
            -1 if front is None else order.index(front),
            self.background,
            self.color,
            self.world,
        )

    def _darken(self, image, shape, left, top):
        edge = 8
        dark = Image.new("L", [length + 2 * edge for length in shape.size])
        dark.paste(shape.getchannel("A"), (edge, edge))
        dark = dark.filter(ImageFilter.BoxBlur(4))
        dark = dark.point(lambda value: value * self.shadow)
        place = (round(left - edge + self.fall), round(top - edge + 4))
        image.paste((0, 0, 0), place, dark)


def paper(color, side, rng):
    """Return plain paper on which the light changes softly."""
    across, down = np.meshgrid(*[np.linspace(-1, 1, side)] * 2)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.cos(angle) * across + np.sin(angle) * down
    light = 1 + rng.uniform(0, 0.08) * light[..., None]
    shade = np.array(PAPERS[color]) * rng.uniform(0.94, 1.06)
    return Image.fromarray(np.clip(shade * light, 0, 255).astype("uint8"))


def visible_box(shape):
    """Return the box of what is more than half opaque in an RGBA image."""
    opaque = shape.getchannel("A").point(lambda value: 255 * (value > 127))
    return opaque.getbbox() or (0, 0, *shape.size)


def _window(shape, side, rng):
    """Cut a part as large as the picture from a shape, near its middle."""
    left, top = (
        round(max(length - side, 0) * rng.beta(3, 3)) for length in shape.size
    )
    right, bottom = min(left + side, shape.width), min(top + side, shape.height)
    window = shape.crop((left, top, right, bottom))
    return window.crop(visible_box(window))


def _in_sight(behind, place, before, other):
    """Return the share of a thing that another one leaves in sight."""
    opaque = np.asarray(behind.getchannel("A")) > 127
    cover = Image.new("L", behind.size)
    offset = [round(o) - round(p) for p, o in zip(place, other, strict=True)]
    cover.paste(before.getchannel("A"), tuple(offset))
    hidden = opaque & (np.asarray(cover) > 127)
    return 1 - hidden.sum() / max(opaque.sum(), 1)


def _cropped(image, rng, least):
    """Cut out a square, of at least this share of the shorter side."""
    side = round(min(image.size) * rng.uniform(least, 1))
    spread = 3 if least > 0.7 else 1
    left, top = (
        round((length - side) * rng.beta(spread, spread))
        for length in image.size
    )
    return image.crop((left, top, left + side, top + side))


def _mirrored(image, rng):
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def lit(image, rng):
    """Change the light a little, never so that a color has another name."""
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.88, 1.12))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.88, 1.1))
    return image


def _broad(thing):
    return things.BROAD[thing.kind]
