"""Train the image tower: each place of a scene says what is there.

The towers of the released preset name a drawing that is alone. Here a place
learns the vector of the drawing that it shows, as these towers see it alone,
with its color, its size and where it is. So what is known of single drawings
is known at each place, also of things that no scene of training shows.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.scenes.scenes import COLORS
from keras_bridgetower_drawings.training.scenes.scenes import GROUNDS
from keras_bridgetower_drawings.training.scenes.scenes import World

BATCH, PATCH = 32, 8
MOST = 3  # Things of a scene.
SCALE = 20.0
PAINTS = (None, *COLORS)
WEIGHTS = {"found": 1.0, "look": 6.0, "paint": 0.5, "where": 2.0}


class Places(keras.layers.Layer):
    """Outputs for a place: a vector, a color, and center and size of the thing.

    It reads the last two states of the image tower.
    """

    def __init__(self, space):
        super().__init__()
        self.norm = keras.layers.LayerNormalization()
        self.vector = keras.layers.Dense(space, name="vector")
        self.paint = keras.layers.Dense(len(PAINTS) + len(GROUNDS))
        # Of the thing and of the place itself.
        self.where = keras.layers.Dense(5)

    def build(self, shape):
        for layer in (self.norm, self.vector, self.paint, self.where):
            layer.build(shape)

    def call(self, x):
        x = self.norm(x)
        return unit(self.vector(x)), self.paint(x), self.where(x)


def unit(x):
    """Scale vectors to length 1."""
    return x / (ops.sqrt(ops.sum(x**2, -1, keepdims=True)) + 1e-6)


class Seeing(model.Rated):
    """The image tower and what its places say.

    Args:
        task: a task with both towers.
        names: float32 `(names, space)`, the vectors of names.
        looks: float32 `(drawings, space)`, those of drawings.
    """

    def __init__(self, task, names, looks):
        super().__init__(("found", "look", "paint"))
        self.tower = task.backbone.image_tower
        self.places = Places(names.shape[1])
        width = sum(x.shape[-1] for x in self.tower.outputs)
        self.places.build((None, None, width))
        # From the vector of a name to that of places that show it.
        self.asked = keras.layers.Dense(names.shape[1], use_bias=False)
        self.asked.build((None, names.shape[1]))
        self.asked.set_weights([np.eye(names.shape[1])])
        self.center = names.mean(0)
        self.names = ops.convert_to_tensor(names - self.center)
        looks = looks - looks.mean(0)
        looks /= np.linalg.norm(looks, axis=1, keepdims=True)
        self.looks = ops.convert_to_tensor(looks.astype("float32"))

    def call(self, x, training=None):
        states = self.tower(x)
        return self.places(ops.concatenate(states, -1)[:, 1:])

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        vectors, paints, wheres = y_pred
        vectors = ops.reshape(vectors, (-1, vectors.shape[-1]))
        asked = unit(self.asked(ops.take(self.names, y["asked"], 0)))
        near = SCALE * ops.matmul(asked, ops.transpose(vectors))
        near = ops.exp(ops.log_softmax(near - 1e9 * y["ignored"]))
        # The share of attention, over all scenes, on the thing.
        found = ops.sum(near * y["mask"], -1)
        at = ops.take(vectors, y["inside"], axis=0)
        look = ops.sum(at * ops.take(self.looks, y["look"], 0), -1)
        paint = keras.losses.sparse_categorical_crossentropy(
            y["paint"], paints, from_logits=True
        )
        losses = {
            "found": -ops.log(found + 1e-6),
            "look": 1 - look,
            "paint": paint,
            "where": ops.abs(wheres - y["where"]) * y["told"],
        }
        self.rates["found"].update_state(found)
        self.rates["look"].update_state(look)
        self.rates["paint"].update_state(
            ops.cast(ops.argmax(paints, -1), "int32") == y["paint"]
        )
        return sum(w * ops.mean(losses[n]) for n, w in WEIGHTS.items())


def truth(scenes, side, names, looks):
    """Return what is true at each place of scenes, for `Seeing`."""
    grid = side // PATCH
    y, x = (np.mgrid[:grid, :grid] + 0.5) / grid
    shape = len(scenes), grid, grid
    thing = np.full(shape, -1)
    paint = np.zeros(shape, "int32")
    where = np.zeros((*shape, 5), "float32")
    told = np.zeros((*shape, 5), "float32")
    where[..., 3], where[..., 4], told[..., 3:] = x, y, 1.0
    grounds = list(GROUNDS)
    for i, scene in enumerate(scenes):
        paint[i] = len(PAINTS) + grounds.index(scene.ground)
        for j, one in enumerate(scene.things):
            near = np.maximum(abs(x - one.x), abs(y - one.y)) < 0.42 * one.size
            thing[i][near] = i * MOST + j
            paint[i][near] = PAINTS.index(one.color)
            where[i][near, :3] = one.x, one.y, one.size
            told[i][near, :3] = 1.0
    found = thing.ravel()
    inside = np.flatnonzero(found >= 0)
    of = [
        (s.things[j], s.artist) if j < len(s.things) else None
        for s in scenes
        for j in range(MOST)
    ]
    shown = [of[number] for number in found[inside]]
    places = len(scenes), grid * grid
    asked = [number for number, one in enumerate(of) if one]
    mask = found[None] == np.array(asked)[:, None]
    called = np.array([names[of[n][0].name] for n in asked], "int32")
    same = called[:, None] == called[None]
    # Other drawings of the same thing.
    ignored = (same.astype("float32") @ mask.astype("float32") > 0) & ~mask
    return {
        "inside": inside.astype("int32"),
        "asked": called,
        "mask": mask.astype("float32"),
        "ignored": ignored.astype("float32"),
        "look": np.array([looks[o.name, a] for o, a in shown], "int32"),
        "paint": paint.reshape(places),
        "where": where.reshape(*places, 5),
        "told": told.reshape(*places, 5),
    }


def vectors(task, things):
    """Return names and looks with their vectors, as the towers see them alone.

    Returns:
        `(names, looks, vectors of names, vectors of looks)`: two dicts to
        rows, and two arrays.
    """
    names = {thing.name: row for row, thing in enumerate(things)}
    ways = ("{}", "a drawing of {}")
    told = sum(task.embed(texts=[w.format(n) for n in names]) for w in ways)
    told /= np.linalg.norm(told, axis=1, keepdims=True)
    shown = [(t.name, a, d) for t in things for a, d in t.drawings.items()]
    looks = {(name, artist): row for row, (name, artist, _) in enumerate(shown)}
    paper = [world.on_white(drawing) for _, _, drawing in shown]
    return names, looks, told, task.embed(images=paper, batch_size=128)


def batches(things, given, converter, side, steps, seed):
    """Return `Batches` of new scenes."""
    scenes = World(things, "training")
    names, looks = given[:2]

    def make(rows, rng):
        drawn = [scenes.scene(rng) for _ in rows]
        pictures = np.stack([scenes.draw(scene, side, rng) for scene in drawn])
        x = np.asarray(converter(pictures), "float32")
        return x, truth(drawn, side, names, looks)

    return model.Batches(make, steps * BATCH, BATCH, seed)
