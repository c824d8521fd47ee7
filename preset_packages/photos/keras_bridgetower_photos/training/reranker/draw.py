"""Draw scenes and their near misses in pools, with states of the image tower.

    python -m keras_bridgetower_photos.training.reranker.draw runs/reranker

A pool has `GROUPS` scenes and a near miss of each. The image tower rests, so a
picture passes it once, compiled by OpenVINO.
"""

import pathlib

import numpy as np
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.scenes.scenes import SORTS

from keras_bridgetower_photos.training import draw
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import pools
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker.world import World

GROUPS = 256


def write(world, eyes, number, folder):
    """Draw a pool and write it, unless it is there."""
    target = pathlib.Path(folder) / f"train_{number}"
    if target.exists():
        return target
    rng = np.random.default_rng((3, number))
    rows, drawn = [], []
    for group in range(GROUPS):
        sort = SORTS[group % len(SORTS)]
        scene = world.scene(rng, sort)
        for one in (scene, world.near_miss(scene, sort, rng)):
            rows.append({"sort": sort, "scene": one})
            drawn.append(one)
    states = eyes.states([world.draw(one, start.SIDE) for one in drawn])
    return pools.write(target, states, rows)


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--pools", type=int, default=20)
    settings = parser.parse_args()
    folders = packages.fetch(settings.folder / "packages")
    world = World(things.load(folders), "training")
    taps = [tap for tap in start.FUSION["image_taps"] if tap is not None]
    encoder = model.image_encoder(folders, start.SIDE)
    eyes = draw.Eyes(encoder, start.SIDE, taps, "bf16")
    for number in range(settings.pools):
        print(write(world, eyes, number, settings.folder / "pools"), flush=True)


if __name__ == "__main__":
    main()
