"""Train the fusion on kept states, as that of the drawings' scenes.

Its hundred nouns would be learned by heart. So in a share of the groups class
probabilities move to other classes, as if a toaster stood where the owl is, and
captions tell of the toaster; classes like the owl become those like it.
"""

import numpy as np
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import fusing
from keras_bridgetower_drawings.training.scenes.scenes import SORTS

from keras_bridgetower_photos.training.pools import Pool
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker.world import scene_of

EXCHANGED = 0.6  # Share of groups with other classes.


class Matching(fusing.Matching):
    """The fusion and the matching head, whose images are their states."""

    def states(self, images):
        # A fusion that reads the highest state alone has no other.
        return images[-len(self.backbone.image_tower.outputs) :]


class Groups:
    """Scenes, their near misses and their states, by sort.

    Args:
        folder: path of the pools.
        classes: list of str, a name of each class, `""` where none fits.
        vectors: float32 `(classes, space)`, the classes as names have them.
    """

    pictures = 2  # Of a group: a scene, its near miss, and others.

    def __init__(self, folder, classes, vectors):
        self.pools = [
            Pool(path, in_memory=False) for path in sorted(folder.iterdir())
        ]
        self.scenes = [
            [scene_of(row["scene"]) for row in pool.rows] for pool in self.pools
        ]
        self.of = {sort: [] for sort in SORTS}
        for number, pool in enumerate(self.pools):
            for row in range(0, len(pool.rows), self.pictures):
                self.of[pool.rows[row]["sort"]].append((number, row))

        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        # All classes, most similar first.
        self.classes, self.order = classes, np.argsort(-unit @ unit.T, 1)
        self.class_of = self._classes_of_things()

    def _classes_of_things(self):
        """Return by name the class that places of a thing most often have."""
        y, x = (np.mgrid[: start.GRID, : start.GRID] + 0.5) / start.GRID
        found = {}
        for pool, scenes in zip(self.pools, self.scenes, strict=True):
            for row in range(0, len(scenes), self.pictures):
                for one in scenes[row].things:
                    far = np.maximum(abs(x - one.x), abs(y - one.y))
                    places = 1 + np.flatnonzero(far < 0.35 * one.size)
                    seen = pool.states[-1][row][places, : len(self.classes)]
                    seen = seen.astype("float32").sum(0)
                    found[one.name] = found.get(one.name, 0) + seen
        return {name: int(seen.argmax()) for name, seen in found.items()}

    def exchange(self, drawn, high, rng):
        """Exchange classes in the states of scenes, and rename their things.

        Args:
            drawn: list of `Scene`.
            high: float32 `(scenes, places, width)`, which begins with classes.
            rng: a generator of NumPy.

        Returns:
            `(scenes, states)`, the given ones where names would be unclear.
        """
        names = sorted({one.name for scene in drawn for one in scene.things})
        own = self.class_of[names[rng.integers(len(names))]]
        count = len(self.classes)
        to = np.empty(count, "int32")
        to[self.order[own]] = self.order[rng.integers(count)]
        new = [self.classes[to[self.class_of[name]]] for name in names]
        if "" in new or len(set(new)) < len(new):
            return drawn, high
        new = dict(zip(names, new, strict=True))
        moved = high.copy()
        moved[..., to] = high[..., :count]
        return [
            scene._replace(
                things=tuple(
                    one._replace(name=new[one.name]) for one in scene.things
                )
            )
            for scene in drawn
        ], moved

    def states(self, rows):
        """Return the states of scenes, by their pools and rows, float32."""
        layers = range(len(self.pools[0].states))
        return [self.state(rows, layer) for layer in layers]

    def state(self, rows, layer):
        """Return one of these states."""
        found = [self.pools[p].states[layer][r] for p, r in rows]
        return np.stack(found).astype("float32")

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


def batches(groups, tokenizer, steps, seed, exchanged=EXCHANGED):
    """Return `Batches` of groups with new captions."""

    def make(rows, rng):
        drawn, sorts, places = groups.draw(rng, len(rows))
        images = groups.states(places)
        for row in range(0, len(drawn), 2):
            if rng.random() < exchanged:
                both = slice(row, row + 2)
                drawn[both], images[-1][both] = groups.exchange(
                    drawn[both], images[-1][both], rng
                )
        told = []
        for sort, *both in zip(sorts, drawn[::2], drawn[1::2], strict=True):
            told += captions.captions(both[0], sort, "training", rng, both[1])
        kinds = [SORTS.index(sort) for sort in sorts]
        return fusing.grouped(drawn, told, kinds, images, tokenizer, start.GRID)

    return model.Batches(make, steps * fusing.GROUPS, fusing.GROUPS, seed)
