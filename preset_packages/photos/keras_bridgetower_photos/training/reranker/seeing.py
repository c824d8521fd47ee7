"""Train what places say of the things that they show: colors, centers, sizes.

The image tower rests. The names of what a place shows are those of the classes
that it sees there, and are not trained: of some hundred things of training,
a projection would learn these alone.
"""

import keras
import numpy as np
from keras import ops
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import seeing
from keras_bridgetower_drawings.training.scenes.scenes import GROUNDS

from keras_bridgetower_photos.training.reranker.start import GRID

BATCH = 32
PHOTOGRAPH = len(seeing.PAINTS) + len(GROUNDS)  # The last kind of paint.


class Seeing(model.Rated):
    """Linear layers that tell what places show, from a state of them.

    Args:
        state: float array `(pictures, places, width)`, some states of pictures,
            to which the channels are scaled.
    """

    def __init__(self, state):
        super().__init__(("paint", "size", "center"))
        self.scaled = keras.layers.Normalization()
        self.scaled.adapt(state)
        self.paint = keras.layers.Dense(PHOTOGRAPH + 1)
        # Of the thing and of the place itself.
        self.where = keras.layers.Dense(5)
        for layer in (self.paint, self.where):
            layer.build(state.shape)

    def call(self, x, training=None):
        x = self.scaled(x)[:, 1:]
        return self.paint(x), self.where(x)

    def columns(self):
        """Return kernel and bias of where and paint, of the state itself."""
        kernels, biases = zip(
            *(layer.get_weights() for layer in (self.where, self.paint)),
            strict=True,
        )
        mean, variance = (
            ops.convert_to_numpy(x).reshape(-1, 1)
            for x in (self.scaled.mean, self.scaled.variance)
        )
        kernel, bias = np.concatenate(kernels, 1), np.concatenate(biases)
        kernel = kernel / np.sqrt(variance + 1e-6)
        return kernel, bias - (mean * kernel).sum(0)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        paints, wheres = y_pred
        paint = keras.losses.sparse_categorical_crossentropy(
            y["paint"], paints, from_logits=True
        )
        far = ops.abs(wheres - y["where"]) * y["told"]
        there = y["told"][..., 2]
        self.rates["size"].update_state(far[..., 2], there)
        self.rates["center"].update_state(far[..., 0] + far[..., 1], there)
        self.rates["paint"].update_state(
            ops.cast(ops.argmax(paints, -1), "int32") == y["paint"]
        )
        return ops.mean(paint) + 4 * ops.mean(far * ops.array(seeing.MATTERS))


def batches(groups, steps, seed, layer=0):
    """Return `Batches` of a kept state, with what is true at its places."""

    def make(rows, rng):
        drawn, _, places = groups.draw(rng, len(rows) // 2)
        _, truth = seeing.at_places(drawn, GRID)
        return groups.state(places, layer), truth

    return model.Batches(make, steps * BATCH, BATCH, seed)
