"""Train the fusion on kept states, as that of the drawings' scenes."""

import numpy as np
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import fusing
from keras_bridgetower_drawings.training.scenes.scenes import SORTS

from keras_bridgetower_photos.training.pools import Pool
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker.world import scene_of


class Matching(fusing.Matching):
    """The fusion and the matching head, whose images are their states."""

    def states(self, images):
        return images


class Groups:
    """Scenes, their near misses and their states, by sort.

    Args:
        folder: path of the pools.
    """

    def __init__(self, folder):
        self.pools = [
            Pool(path, in_memory=False) for path in sorted(folder.iterdir())
        ]
        self.scenes = [
            [scene_of(row["scene"]) for row in pool.rows] for pool in self.pools
        ]
        self.of = {sort: [] for sort in SORTS}
        for number, pool in enumerate(self.pools):
            for row in range(0, len(pool.rows), 2):
                self.of[pool.rows[row]["sort"]].append((number, row))

    def states(self, rows):
        """Return the states of scenes, by their pools and rows, float32."""
        layers = range(len(self.pools[0].states))
        return [
            np.stack([self.pools[p].states[layer][r] for p, r in rows]).astype(
                "float32"
            )
            for layer in layers
        ]

    def draw(self, rng, count):
        """Draw groups, as many of each sort.

        Returns:
            `(scenes, sorts, rows)`: of each group a scene and its near miss,
            or the other way round, and where their states are.
        """
        found, sorts, places = [], [], []
        for number in range(count):
            sort = SORTS[number % len(SORTS)]
            groups = self.of[sort]
            pool, row = groups[rng.integers(len(groups))]
            both = [(pool, row), (pool, row + 1)]
            if rng.random() < 0.5:
                both = both[::-1]
            found += [self.scenes[p][r] for p, r in both]
            sorts.append(sort)
            places += both
        return found, sorts, places


def batches(groups, tokenizer, steps, seed):
    """Return `Batches` of groups with new captions."""

    def make(rows, rng):
        drawn, sorts, places = groups.draw(rng, len(rows))
        told = []
        for sort, *both in zip(sorts, drawn[::2], drawn[1::2], strict=True):
            told += captions.captions(both[0], sort, "training", rng, both[1])
        kinds = [SORTS.index(sort) for sort in sorts]
        images = groups.states(places)
        return fusing.grouped(drawn, told, kinds, images, tokenizer, start.GRID)

    return model.Batches(make, steps * fusing.GROUPS, fusing.GROUPS, seed)
