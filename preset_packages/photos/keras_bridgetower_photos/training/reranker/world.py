"""Scenes of one to three photographed things, and their near misses.

Scenes, facts and near misses are those of the drawings' scenes; only what they
show is another: cut-outs of photographs, on photographs of places or on paper.
"""

import zlib

import numpy as np
from keras_bridgetower_drawings.training.scenes import scenes
from PIL import Image
from PIL import ImageFilter
from PIL import ImageOps

from keras_bridgetower_photos.training import painting
from keras_bridgetower_photos.training import scenes as photographed
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

# How often a scene is on a photograph of a place, which captions do not tell.
ON_PLACES = 0.5
# Many pictures alike, or names that are true of many things.
UNWANTED_KINDS = {"coin"}
UNWANTED = {"planet", "flower", "tree", "figurine", "fish", "striped fish"}
# Numbers that decide how a scene's things are lit, turned and cut.
NUMBERS = 10**6


class World(scenes.World):
    """Makes scenes of the things and photographs of a split.

    A scene's `artist` is a number that decides which pictures of its things are
    shown, and how they vary; its `pattern` names a photograph of a place, for
    which its ground is `""`, or is `"paper"`.

    Args:
        world: `things.World`.
        part: `"training"`, `"validation"` or `"test"`.
    """

    def __init__(self, world, part):
        split = "train" if part == "training" else part
        shown = {}
        for thing in world.things:
            unwanted = thing.kind in UNWANTED_KINDS or thing.noun in UNWANTED
            if thing.split == split and not unwanted:
                shown.setdefault(thing.noun.lower(), []).append(thing)
        self.part, self.things = part, shown
        self.every = sorted(shown)
        self.artists = np.arange(NUMBERS)
        self.grounds = {
            one.id: one
            for one in world.photographs
            if one.split == split and one.place
        }
        self.read = {}

    def scene(self, rng, sort=None):
        found = super().scene(rng, sort)
        on_place = sort != "ground" and rng.random() < ON_PLACES
        pattern = str(rng.choice(sorted(self.grounds))) if on_place else "paper"
        ground = "" if on_place else found.ground
        return found._replace(pattern=pattern, ground=ground)

    def near_miss(self, scene, sort, rng):
        found = super().near_miss(scene, sort, rng)
        return found._replace(pattern="paper") if sort == "ground" else found

    def different(self, artist, count, rng):
        """Draw names of things none of which is called as another one."""
        while True:
            names = rng.choice(self.every, count, replace=False)
            first = [self.things[name][0] for name in names]
            if all(
                words.are_apart(one, other)
                for i, one in enumerate(first)
                for other in first[:i]
            ):
                return names

    def _other_name(self, scene, rng):
        seen = [self.things[one.name][0] for one in scene.things]
        while True:
            name = str(rng.choice(self.every))
            other = self.things[name][0]
            if all(words.are_apart(other, one) for one in seen):
                return name

    def draw(self, scene, side):
        """Return the pixels of a scene, uint8 `(side, side, 3)`."""
        image = self._ground(scene, side)
        for one in scene.things:
            rng = _generator(scene.artist, one.name)
            pictures = self.things[one.name]
            shape = self._cut_out(pictures[rng.integers(len(pictures))])
            shape = _varied(shape, round(one.size * side), one.color, rng)
            left = round(one.x * side - shape.width / 2)
            top = round(one.y * side - shape.height / 2)
            image.paste(shape, (left, top), shape)
        return np.asarray(image)

    def _ground(self, scene, side):
        rng = _generator(scene.artist, scene.pattern)
        if scene.ground:
            light = rng.uniform(0.93, 1.0, (2, 2)).astype("float32")
            light = Image.fromarray(light).resize((side, side), Image.BILINEAR)
            shade = np.array(scenes.GROUNDS[scene.ground])
            shades = np.asarray(light)[..., None] * shade
            return Image.fromarray(shades.astype("uint8"))
        image = self._photograph(self.grounds[scene.pattern])
        length = round(min(image.size) * rng.uniform(0.6, 1))
        left, top = ((x - length) * rng.random() for x in image.size)
        image = image.crop((left, top, left + length, top + length))
        if rng.random() < 0.5:
            image = ImageOps.mirror(image)
        return image.resize((side, side), Image.BILINEAR)

    def _cut_out(self, thing):
        if thing.id not in self.read:
            shape = things.cut_out(thing)
            shape = shape.crop(photographed.visible_box(shape))
            self.read[thing.id] = shape
        return self.read[thing.id]

    def _photograph(self, one):
        if one.id not in self.read:
            image = things.picture(one)
            image.thumbnail((900, 900))
            self.read[one.id] = image
        return self.read[one.id]


def scene_of(row):
    """Return the `Scene` of a row that was written as JSON."""
    placed, *others = row
    return scenes.Scene(tuple(scenes.Placed(*one) for one in placed), *others)


def _generator(*given):
    return np.random.default_rng(zlib.crc32(repr(given).encode()))


def _varied(shape, length, color, rng):
    """Return a cut-out turned, lit and scaled, in a color if one is given."""
    if rng.random() < 0.5:
        shape = ImageOps.mirror(shape)
    if rng.random() < 0.5:
        turn = float(np.clip(rng.normal(0, 4), -9, 9))
        shape = shape.rotate(turn, Image.BILINEAR, expand=True)
        shape = shape.crop(photographed.visible_box(shape))
    scale = length / max(shape.size)
    size = [max(round(scale * x), 1) for x in shape.size]
    shape = shape.resize(size, Image.BICUBIC)
    opacity = shape.getchannel("A").filter(ImageFilter.GaussianBlur(0.5))
    if color:
        shape = painting.paint(shape, color, rng)
    shape = photographed.lit(shape.convert("RGB"), rng)
    shape.putalpha(opacity)
    return shape
