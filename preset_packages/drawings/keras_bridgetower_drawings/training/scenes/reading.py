"""Train the text tower: the state of each noun holds its facts.

The vector of a noun is that of the places that show its thing, and the vectors
of other words become short, since they count less in the similarity of words.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes.scenes import COLORS
from keras_bridgetower_drawings.training.scenes.scenes import FACT
from keras_bridgetower_drawings.training.scenes.scenes import GROUNDS
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World

BATCH, NOUNS = 128, 2
SCALE = 20.0
LONG = 10.0  # The vectors of nouns, about as before training.
PAINTS = (None, *COLORS)
TOLD = tuple(FACT.values())


class Nouns(keras.layers.Layer):
    """Outputs for a noun: a color, and a part in each relation."""

    def __init__(self):
        super().__init__()
        self.paint = keras.layers.Dense(len(PAINTS))
        self.part = keras.layers.Dense(len(TOLD))

    def build(self, shape):
        for layer in (self.paint, self.part):
            layer.build(shape)

    def call(self, x):
        return self.paint(x), self.part(x)


class Reading(model.Rated):
    """The text tower and what its nouns say.

    Args:
        task: as of `Seeing`.
        names: float32 `(names, space)`, the vectors of names.
        asked: float32 `(names, space)`, unit vectors of what shows them.
    """

    def __init__(self, task, names, asked):
        super().__init__(("name", "paint", "part", "whole", "length"))
        self.tower, self.head = task.backbone.text_tower, task.heads["itc"]
        self.nouns = Nouns()
        self.nouns.build((None, None, self.tower.outputs[-1].shape[-1]))
        self.ground = keras.layers.Dense(len(GROUNDS) + 1)
        self.ground.build((None, self.tower.outputs[-1].shape[-1]))
        self.names = ops.convert_to_tensor(names)
        self.asked = ops.convert_to_tensor(asked)

    def call(self, x, training=None):
        ids = {k: x[k] for k in ("token_ids", "padding_mask")}
        last = self.tower(ids)[-1]
        at = ops.take_along_axis(last, x["places"][..., None], axis=1)
        whole = self.head({"text": last[:, 0]})["text"]
        words = self.head.text_dense(last)
        lengths = ops.sqrt(ops.sum(words**2, -1) + 1e-6)
        said = self.head({"text": at})["text"]
        return whole, self.ground(last[:, 0]), lengths, said, *self.nouns(at)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        whole, ground, lengths, vectors, paint, part = y_pred
        said = SCALE * ops.matmul(vectors, ops.transpose(self.asked))
        entropy = keras.losses.sparse_categorical_crossentropy
        mean = ops.sum(ops.take(self.names, y["name"], 0), 1)
        mean /= ops.sqrt(ops.sum(mean**2, -1, keepdims=True))
        own = ops.take(self.asked, y["name"], 0)
        long = ops.abs(lengths / LONG - y["nouns"])
        near = ops.sum(whole * mean, -1)
        rates = {
            "name": ops.cast(ops.argmax(said, -1), "int32") == y["name"],
            "paint": ops.cast(ops.argmax(paint, -1), "int32") == y["paint"],
            "part": ops.abs(part - y["part"]) < 0.5,
            "whole": near,
            "length": long,
        }
        for name, values in rates.items():
            self.rates[name].update_state(values)
        return (
            0.3 * ops.mean(entropy(y["name"], said, from_logits=True))
            + 2 * ops.mean(1 - ops.sum(own * vectors, -1))
            + 2 * ops.mean(1 - near)
            + ops.mean(long[:, 1:] ** 2)
            + ops.mean(entropy(y["paint"], paint, from_logits=True))
            + ops.mean(entropy(y["ground"], ground, from_logits=True))
            + 4 * ops.mean((part - y["part"]) ** 2)
        )


def truth(told, names, x):
    """Return what captions tell of their nouns, for `Reading`.

    Args:
        told: list of `Caption`.
        names: dict from names to rows.
        x: their `features`.
    """
    nouns = np.zeros(x["token_ids"].shape, "float32")
    np.put_along_axis(nouns, x["places"], 1.0, axis=1)
    grounds = list(GROUNDS)
    name = np.zeros((len(told), NOUNS), "int32")
    paint, ground = np.zeros_like(name), np.zeros(len(told), "int32")
    part = np.zeros((len(told), NOUNS, len(TOLD)), "float32")
    for i, caption in enumerate(told):
        for fact in caption.facts:
            if fact[0] == "ground":
                ground[i] = 1 + grounds.index(fact[1])
        for j in range(NOUNS):
            one = caption.names[min(j, len(caption.names) - 1)]
            name[i, j] = names.get(one, 0)
            for fact in caption.facts:
                if fact[:2] == ("color", one):
                    paint[i, j] = PAINTS.index(fact[2])
                if fact[0] in TOLD:
                    sign = 1 if fact[1] == one else -1
                    part[i, j, TOLD.index(fact[0])] = sign
    return {
        "nouns": nouns,
        "name": name,
        "paint": paint,
        "ground": ground,
        "part": part,
    }


def features(tokenizer, told, length):
    """Return the tokens of captions and the last token of each noun."""
    texts = [caption.text for caption in told]
    starts = []
    for caption in told:
        for j in range(NOUNS):
            end = caption.ends[min(j, len(caption.ends) - 1)]
            starts.append(caption.text[:end])
    ids = np.asarray(tokenizer(texts + starts), "int32")
    mask = (ids != tokenizer.pad_token_id).astype("int32")
    # Behind the noun stands the end.
    places = mask[len(texts) :].sum(1).reshape(-1, NOUNS) - 2
    ids, mask = ids[: len(texts), :length], mask[: len(texts), :length]
    places = np.minimum(places, length - 1).astype("int32")
    return {"token_ids": ids, "padding_mask": mask, "places": places}


def batches(things, names, tokenizer, steps, seed, words=()):
    """Return `Batches` of captions of new scenes.

    Args:
        things: list of `Thing`.
        names: dict from names to rows.
        tokenizer: of the text tower.
        steps: int, of an epoch.
        seed: int.
        words: list of `Thing` without drawings, of which half of the captions
            tell, if there are any. With few names, the tower learns them by
            heart, and the names of other things less well.
    """
    worlds = [World(some, "training") for some in (things, words) if some]

    def make(rows, rng):
        told = []
        while len(told) < len(rows):
            sort = SORTS[rng.integers(len(SORTS))]
            scenes = worlds[rng.integers(len(worlds))]
            scene = scenes.scene(rng, sort)
            other = scenes.near_miss(scene, sort, rng)
            told += captions.captions(scene, sort, "training", rng, other)
        told = told[: len(rows)]
        x = features(tokenizer, told, tokenizer.sequence_length)
        return x, truth(told, names, x)

    return model.Batches(make, steps * BATCH, BATCH, seed)
