"""Second stage: the image tower learns where each drawing lies.

It learns from drawings and from what MiniLM says of their captions; our own
text tower, which learns the same space beside it, is not needed. A list of
scores for all emoji, which is thrown away after training, teaches it to tell
apart what MiniLM holds for nearly the same.
"""

import keras
import numpy as np
from keras import ops

from emoji_world.training.model import Batches
from emoji_world.training.model import train
from keras_bridgetower.models.contrastive_features import contrastive_features

BATCH = 64
# How sharp the softmax over all emoji is.
SCALE = 30.0


def learn(task, drawings, space, epochs, learning_rate, folder):
    """Train the image side of a contrastive task; returns the history."""
    numbers, places, same = places_of(space, drawings.run)
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


def places_of(space, run):
    """Where each emoji of training lies, and which ones are equally right.

    Args:
        space: `Space`.
        run: `Run`.

    Returns:
        `(numbers, places, same)`: list of int; float array `(emoji, SPACE)`,
        the mean of each emoji's captions, of length 1; float array
        `(emoji, emoji)`, for each emoji the share of each that looks like it.
    """
    numbers = list(space.captions)
    every = space.of([t for n in numbers for t in space.captions[n]])
    places = np.stack([part.mean(0) for part in np.split(every, len(numbers))])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    looks = run.splits.looks[numbers]
    same = (looks[:, None] == looks[None, :]).astype("float32")
    return numbers, places, same / same.sum(-1, keepdims=True)


def find_its_place(places, same):
    """Each drawing must lie nearer to its own place than to all others.

    Args:
        places: float array `(emoji, SPACE)`, the mean of each emoji's
            captions, of length 1.
        same: float array `(emoji, emoji)`, what is right for each emoji.

    Returns:
        A loss of the emoji's rows and the drawings' places.
    """
    named = find_its_name(same)

    def loss(true, given):
        return named(true, SCALE * ops.matmul(given, places.T))

    return loss


def find_its_name(same):
    """Cross-entropy in which emoji that look alike are equally right."""

    def loss(true, scores):
        wanted = ops.take(same, ops.cast(true, "int32"), axis=0)
        return -ops.sum(wanted * ops.log_softmax(scores), -1)

    return loss
