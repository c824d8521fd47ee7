"""The image tower learns where each drawing lies.

It learns from drawings and from where a reader puts their captions. A list of
scores for all emoji, which is thrown away after training, teaches it to tell
apart what the reader holds for nearly the same.
"""

import keras
import numpy as np
from keras import ops

from emoji_world.training.model import Batches
from emoji_world.training.model import train
from keras_bridgetower.models.heads import contrastive_features

BATCH = 64
# How sharp the softmax over all emoji is.
SCALE = 30.0
# How much it counts how far a drawing is from its place. Nearest to its own
# place it may be far from all, and then other drawings are nearer to a text.
NEAR = 5.0


def learn(task, drawings, space, read, epochs, learning_rate, folder):
    """Train the image side of a contrastive task; returns the history.

    Args:
        task: a contrastive task.
        drawings: `TrainingDrawings`.
        space: `Space`.
        read: callable from a list of texts to their vectors.
        epochs: int.
        learning_rate: float.
        folder: path; a copy of the unfinished run lives in it.
    """
    numbers, places, same = places_of(space, drawings.run, read)
    convert = task.preprocessor.image_converter
    row_of = {number: row for row, number in enumerate(numbers)}

    def batch(rows, rng):
        shown = np.asarray(convert(drawings.pictures(rows, rng)))
        wanted = np.array([row_of[drawings.rows[row][0]] for row in rows])
        return shown, {"place": wanted, "name": wanted}

    run = drawings.run
    data = Batches(batch, len(drawings.rows), BATCH, run.seed)
    return train(
        _looker(task, len(numbers)),
        data,
        epochs,
        learning_rate,
        folder,
        loss={
            "place": find_its_place(places, same),
            "name": find_its_name(same),
        },
        loss_weights={"place": 1.0, "name": 0.5},
    )


def _looker(task, count):
    """From pictures to their places, and to a score for each emoji."""
    pictures = task.input["images"]
    states = task.backbone.image_tower(pictures)
    features = contrastive_features(
        task.backbone.fusion, task.ways, image=states
    )
    place = task.heads["itc"](features)["image"]
    seen = keras.layers.LayerNormalization()(states[-1][:, 0])
    scores = keras.layers.Dense(count)(seen)
    return keras.Model(pictures, {"place": place, "name": scores})


def places_of(space, run, read):
    """Where each emoji of training lies, and which ones are equally right.

    Args:
        space: `Space`.
        run: `Run`.
        read: callable from a list of texts to their vectors.

    Returns:
        `(numbers, places, same)`: list of int; float array `(emoji, SPACE)`,
        the mean of each emoji's captions, of length 1; float array
        `(emoji, emoji)`, for each emoji the share of each that looks like it.
    """
    numbers = list(space.captions)
    every = read([t for n in numbers for t in space.captions[n]])
    places = np.stack([part.mean(0) for part in np.split(every, len(numbers))])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    looks = run.splits.looks[numbers]
    return numbers, places, alike(looks, looks)


def alike(looks, others):
    """For each look the share of each other that is the same, float32."""
    same = (looks[:, None] == others[None, :]).astype("float32")
    return same / same.sum(-1, keepdims=True)


def find_its_place(places, same):
    """Each drawing must lie at its own place, and nearer to it than others.

    Args:
        places: float array `(emoji, SPACE)`, the mean of each emoji's
            captions, of length 1.
        same: float array `(emoji, emoji)`, what is right for each emoji.

    Returns:
        A loss of the emoji's rows and the drawings' places.
    """
    named = find_its_name(same)

    def loss(true, given):
        near = given @ places.T
        own = ops.take_along_axis(near, ops.cast(true, "int32")[:, None], 1)
        return named(true, SCALE * near) + NEAR * (1.0 - own[:, 0])

    return loss


def find_its_name(same):
    """Cross-entropy in which emoji that look alike are equally right."""

    def loss(true, scores):
        wanted = ops.take(same, ops.cast(true, "int32"), axis=0)
        return -ops.sum(wanted * ops.log_softmax(scores), -1)

    return loss
