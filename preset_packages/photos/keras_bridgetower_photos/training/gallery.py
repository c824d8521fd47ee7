"""All pictures of the world, each as a search would show it."""

import json
import pathlib

import numpy as np
from PIL import Image

from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

SIDE = 224
DESCRIPTIONS = pathlib.Path(__file__).with_name("descriptions.json")


def pictures(world):
    """Return cut-outs on white paper, then cropped photographs: a list.

    Each is a uint8 array `(224, 224, 3)`.
    """
    found = [_on_paper(things.cut_out(thing)) for thing in world.things]
    for photograph in world.photographs:
        image = things.picture(photograph)
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side))
        found.append(np.asarray(image.resize((SIDE, SIDE), Image.BICUBIC)))
    return found


def _on_paper(cut_out):
    scale = 0.88 * SIDE / max(cut_out.size)
    size = [max(round(scale * length), 1) for length in cut_out.size]
    cut_out = cut_out.resize(size, Image.BICUBIC)
    paper = Image.new("RGBA", (SIDE, SIDE), "white")
    place = [(SIDE - length) // 2 for length in size]
    paper.alpha_composite(cut_out, tuple(place))
    return np.asarray(paper.convert("RGB"))


def named(world, split):
    """Return names of a split's pictures, and `(texts, pictures)` of bool."""
    names = sorted({one.name for one in world.shown if one.split == split})
    texts = [f"a photo of {words.with_article(name)}" for name in names]
    shown = np.array([one.name for one in world.shown])
    return texts, np.array(names)[:, None] == shown


def described(world, split):
    """Return free descriptions, and the pictures that they describe."""
    known = json.loads(DESCRIPTIONS.read_text())[split]
    shown = np.array([one.id for one in world.shown])
    return list(known.values()), np.array([*known])[:, None] == shown
