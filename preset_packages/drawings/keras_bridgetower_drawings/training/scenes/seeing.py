"""Train the image tower: each place of a scene says what is there.

The towers of the released preset name a drawing that is alone. Here a place
learns the vector of the drawing that it shows, as these towers see it alone,
with its color, its size and where it is. So what is known of single drawings
is known at each place, also of things that no scene of training shows. The
teacher sees each drawing exactly as it is shown, varied or blended with another
one, and the whole scene, whose vector the class token keeps.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.scenes.scenes import COLORS
from keras_bridgetower_drawings.training.scenes.scenes import GROUNDS
from keras_bridgetower_drawings.training.scenes.scenes import World
from keras_bridgetower_drawings.training.scenes.scenes import blended

BATCH, PATCH = 32, 8
MOST = 3  # Things of a scene.
SCALE = 20.0
BLENDED = 0.3  # Share of drawings that are two, and have no name.
PAINTS = (None, *COLORS)
WEIGHTS = {
    "found": 1.0,
    "named": 1.0,
    "look": 4.0,
    "known": 1.0,
    "paint": 0.5,
    "where": 2.0,
    "whole": 4.0,
}
# Of x, y and size of the thing, and x and y of the place.
MATTERS = (1.0, 1.0, 4.0, 0.5, 0.5)


class Places(keras.layers.Layer):
    """Outputs for a place: a color, and center and size of the thing.

    It reads the last two states of the image tower.
    """

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.LayerNormalization()
        self.paint = keras.layers.Dense(len(PAINTS) + len(GROUNDS))
        # Of the thing and of the place itself.
        self.where = keras.layers.Dense(5)

    def build(self, shape):
        for layer in (self.norm, self.paint, self.where):
            layer.build(shape)

    def call(self, x):
        x = self.norm(x)
        return self.paint(x), self.where(x)


def unit(x):
    """Scale vectors to length 1."""
    return x / (ops.sqrt(ops.sum(x**2, -1, keepdims=True)) + 1e-6)


class Seeing(model.Rated):
    """The image tower and what its places say.

    Args:
        task: a task with both towers.
        names: float32 `(names, space)`, the vectors of names.
    """

    def __init__(self, task, names):
        super().__init__(("found", "named", "look", "paint", "whole", "size"))
        self.tower, self.head = task.backbone.image_tower, task.heads["itc"]
        self.places = Places()
        width = sum(x.shape[-1] for x in self.tower.outputs)
        self.places.build((None, None, width))
        # From the vector of a name to that of places that show it.
        self.asked = keras.layers.Dense(names.shape[1], use_bias=False)
        self.asked.build((None, names.shape[1]))
        self.asked.set_weights([np.eye(names.shape[1])])
        self.center = names.mean(0)
        self.names = ops.convert_to_tensor(names - self.center)

    def shown_by(self, others=None):
        """Return the vectors that places of each name should have.

        Args:
            others: float32 `(others, space)`, vectors of names that training
                does not show, or None. For them, the mean of what was learned
                and of what the released towers say finds more things.
        """
        found = [unit(self.asked(self.names))]
        if others is not None:
            kernel = self.asked.kernel
            others = ops.convert_to_tensor(others - self.center)
            scale = np.sqrt(kernel.shape[0]) / ops.norm(kernel)
            found.append(unit(others + scale * self.asked(others)))
        return np.concatenate([ops.convert_to_numpy(f) for f in found])

    def call(self, x, training=None):
        states = self.tower(x)
        # Places and the class token have one projection, as in FILIP.
        vectors = self.head({"image": states[-1]})["image"]
        told = self.places(ops.concatenate(states, -1)[:, 1:])
        return vectors[:, 1:], *told, vectors[:, 0]

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        vectors, paints, wheres, whole = y_pred
        vectors = ops.reshape(vectors, (-1, vectors.shape[-1]))
        asked = unit(self.asked(ops.take(self.names, y["asked"], 0)))
        near = SCALE * ops.matmul(asked, ops.transpose(vectors))
        near -= 1e9 * y["ignored"]
        # The share of attention, over all scenes, on the thing.
        found = ops.sum(ops.softmax(near) * y["mask"], -1)
        # And of a place, over all names of the batch.
        named = ops.sum(ops.softmax(near, axis=0) * y["mask"], 0)
        at = ops.take(vectors, y["inside"], axis=0)
        look = ops.sum(at * ops.take(y["looks"], y["look"], 0), -1)
        known = keras.losses.sparse_categorical_crossentropy(
            y["look"],
            SCALE * ops.matmul(at, ops.transpose(y["looks"])),
            from_logits=True,
        )
        has_name = ops.sum(y["mask"], 0)
        paint = keras.losses.sparse_categorical_crossentropy(
            y["paint"], paints, from_logits=True
        )
        losses = {
            "found": -ops.log(found + 1e-6),
            "named": -ops.log(named + 1e-6) * has_name / ops.mean(has_name),
            "look": 1 - look,
            "known": known,
            "paint": paint,
            "where": ops.abs(wheres - y["where"]) * y["told"],
            "whole": 1 - ops.sum(whole * y["whole"], -1),
        }
        self.rates["whole"].update_state(1 - losses["whole"])
        self.rates["size"].update_state(
            losses["where"][..., 2], ops.abs(y["told"][..., 2]) > 0
        )
        losses["where"] *= ops.array(MATTERS)
        self.rates["found"].update_state(found)
        self.rates["named"].update_state(named, has_name)
        self.rates["look"].update_state(look)
        self.rates["paint"].update_state(
            ops.cast(ops.argmax(paints, -1), "int32") == y["paint"]
        )
        return sum(w * ops.mean(losses[n]) for n, w in WEIGHTS.items())


def at_places(scenes, grid):
    """Return what scenes show at each of `grid` x `grid` places.

    Returns:
        `(things, truth)`: int `(scenes, grid, grid)`, which is `MOST` times the
        number of the scene and that of the thing, or -1; and a dict of its
        `"paint"`, `"where"`, and of which values of these are `"told"`.
    """
    y, x = (np.mgrid[:grid, :grid] + 0.5) / grid
    shape = len(scenes), grid, grid
    thing = np.full(shape, -1)
    paint = np.zeros(shape, "int32")
    where = np.zeros((*shape, 5), "float32")
    told = np.zeros((*shape, 5), "float32")
    where[..., 3], where[..., 4], told[..., 3:] = x, y, 1.0
    # The last one has no name.
    grounds = [*GROUNDS, ""]
    for i, scene in enumerate(scenes):
        paint[i] = len(PAINTS) + grounds.index(scene.ground)
        for j, one in enumerate(scene.things):
            near = np.maximum(abs(x - one.x), abs(y - one.y)) < 0.42 * one.size
            thing[i][near] = i * MOST + j
            paint[i][near] = PAINTS.index(one.color)
            where[i][near, :3] = one.x, one.y, one.size
            told[i][near, :3] = 1.0
    places = len(scenes), grid * grid
    return thing, {
        "paint": paint.reshape(places),
        "where": where.reshape(*places, 5),
        "told": told.reshape(*places, 5),
    }


def truth(scenes, side, names, blends):
    """Return what is true at each place of scenes, for `Seeing`.

    Args:
        scenes: list of `Scene`.
        side: int, pixels.
        names: dict from names to rows.
        blends: set of pairs of a scene's row and a thing's, which have no name.
    """
    thing, at = at_places(scenes, side // PATCH)
    found = thing.ravel()
    inside = np.flatnonzero(found >= 0)
    of = [(i, j) for i, s in enumerate(scenes) for j in range(len(s.things))]
    rows = {i * MOST + j: row for row, (i, j) in enumerate(of)}
    shown = [rows[number] for number in found[inside]]
    asked = [one for one in of if one not in blends]
    mask = found[None] == np.array([i * MOST + j for i, j in asked])[:, None]
    called = [names[scenes[i].things[j].name] for i, j in asked]
    called = np.array(called, "int32")
    same = called[:, None] == called[None]
    # Other drawings of the same thing.
    ignored = (same.astype("float32") @ mask.astype("float32") > 0) & ~mask
    return at | {
        "inside": inside.astype("int32"),
        "asked": called,
        "mask": mask.astype("float32"),
        "ignored": ignored.astype("float32"),
        "look": np.array(shown, "int32"),
    }


def vectors(task, things):
    """Return rows of names and their vectors, as the text tower sees them."""
    names = {thing.name: row for row, thing in enumerate(things)}
    ways = ("{}", "a drawing of {}")
    told = sum(task.embed(texts=[w.format(n) for n in names]) for w in ways)
    return names, told / np.linalg.norm(told, axis=1, keepdims=True)


def batches(things, names, task, converter, side, steps, seed):
    """Return `Batches` of new scenes.

    Args:
        things: list of `Thing`.
        names: dict from names to rows.
        task: the embedding task that teaches.
        converter: of pictures, for the tower that learns.
        side: int, pixels.
        steps: int, of an epoch.
        seed: int.
    """
    scenes = World(things, "training")
    every = [d for thing in things for d in thing.drawings.values()]
    paper = [world.on_white(d) for d in every[::4]]
    center = task.embed(images=paper, batch_size=128).mean(0)

    def make(rows, rng):
        drawn = [scenes.scene(rng) for _ in rows]
        shown, blends = [], set()
        for i, scene in enumerate(drawn):
            shown.append(scenes.drawings(scene, rng))
            for j, one in enumerate(shown[i]):
                if rng.random() < BLENDED:
                    blends.add((i, j))
                    other = every[rng.integers(len(every))]
                    shown[i][j] = blended(one, other, rng)
        pictures = [
            scenes.draw(scene, side, drawings)
            for scene, drawings in zip(drawn, shown, strict=True)
        ]
        pictures = np.stack(pictures)
        alone = [world.on_white(one) for drawings in shown for one in drawings]
        looks = task.embed(images=alone, batch_size=128) - center
        y = truth(drawn, side, names, blends)
        y["looks"] = looks / np.linalg.norm(looks, axis=1, keepdims=True)
        y["whole"] = task.embed(images=pictures, batch_size=128)
        return np.asarray(converter(pictures), "float32"), y

    return model.Batches(make, steps * BATCH, BATCH, seed)
