"""Scenes whose things a card may hide, for entailment, and pairs of them.

    python -m keras_bridgetower_photos.training.reranker.cards runs/reranker

draws the pools. A group has a scene, its near miss, and both with a card: over
a thing that captions tell of, and elsewhere. What is under a card is unknown.
"""

import pathlib

import numpy as np
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from PIL import Image

from keras_bridgetower_photos.training import draw
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import pools
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker.world import World

GROUPS, PICTURES = 192, 6
SEEDS = {"training": 7, "validation": 8, "test": 9}
# Pictures of a group: the scene and its near miss; with a card over a thing
# that is told; with a card elsewhere.
PLAIN, HIDDEN, ELSEWHERE = (0, 1), (2, 3), (4, 5)
LARGER = 1.2  # The side of a card over that of the thing under it.
SQUARES = 6


def shown(world, scene, card, side):
    """Return the pixels of a scene under a card, or without one.

    Args:
        card: `(x, y, size)` in shares of the side, or None.
    """
    pixels = world.draw(scene, side)
    if card is None:
        return pixels
    x, y, size = card
    length = round(size * side)
    rows, columns = np.mgrid[:length, :length] * SQUARES // max(length, 1)
    squares = np.where((rows + columns) % 2, 245, 15).astype("uint8")
    image = Image.fromarray(np.array(pixels))
    at = round(x * side - length / 2), round(y * side - length / 2)
    image.paste(Image.fromarray(squares).convert("RGB"), at)
    return np.asarray(image)


def group(world, rng, sort):
    """Draw a group.

    Returns:
        list of `(scene, card)`, or None where a scene has no room for a card.
    """
    scene = world.scene(rng, sort)
    both = scene, world.near_miss(scene, sort, rng)
    told = 1 if sort == "ground" else min(2, len(scene.things))
    found = [(one, None) for one in both]
    for one in both:
        under = one.things[rng.integers(told)]
        found.append((one, (under.x, under.y, LARGER * under.size)))
    for one in both:
        if len(one.things) > told and rng.random() < 0.5:
            place = one.things[-1]
            size = LARGER * place.size
        else:
            more = world.more(one, rng)
            if more is None:
                return None
            place = more.things[-1]
            size = place.size
        found.append((one, (place.x, place.y, size)))
    return found


def write(world, eyes, number, folder):
    """Draw a pool and write it, unless it is there."""
    target = pathlib.Path(folder) / world.part / f"pool_{number}"
    if target.exists():
        return target
    rng = np.random.default_rng((SEEDS[world.part], number))
    rows, pictures = [], []
    while len(rows) < GROUPS * PICTURES:
        sort = SORTS[len(rows) // PICTURES % len(SORTS)]
        for scene, card in group(world, rng, sort) or ():
            rows.append({"sort": sort, "scene": scene, "card": card})
            pictures.append(shown(world, scene, card, start.SIDE))
    return pools.write(target, eyes.states(pictures), rows)


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--pools", type=int, default=8)
    settings = parser.parse_args()
    folders = packages.fetch(settings.folder / "packages")
    known = things.load(folders)
    taps = [tap for tap in start.FUSION["image_taps"] if tap is not None]
    eyes = draw.Eyes(
        model.image_encoder(folders, start.SIDE), start.SIDE, taps, "bf16"
    )
    target = settings.folder / "judged"
    counts = {"validation": 1, "test": 1, "training": settings.pools}
    for part, count in counts.items():
        world = World(known, part)
        for number in range(count):
            print(write(world, eyes, number, target), flush=True)


if __name__ == "__main__":
    main()
