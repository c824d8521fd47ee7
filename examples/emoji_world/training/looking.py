"""Second stage: the image tower learns where each drawing lies.

It learns from drawings and from what MiniLM says of their captions; our own
text tower, which learns the same space beside it, is not needed.
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


def learn(task, drawings, space, epochs, folder, seed):
    """Train the image side of a contrastive task; returns the history."""
    pictures = task.input["images"]
    features = contrastive_features(
        task.backbone.fusion,
        task.ways,
        image=task.backbone.image_tower(pictures),
    )
    looker = keras.Model(pictures, task.heads["itc"](features)["image"])
    numbers = list(space.captions)
    every = space.of([t for n in numbers for t in space.captions[n]])
    places = np.stack([part.mean(0) for part in np.split(every, len(numbers))])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    convert = task.preprocessor.image_converter
    row_of = {number: row for row, number in enumerate(numbers)}

    def batch(rows, rng):
        shown = np.asarray(convert(drawings.pictures(rows, rng)))
        wanted = [row_of[drawings.rows[row][0]] for row in rows]
        return shown, np.array(wanted, "int32")

    data = Batches(batch, len(drawings.rows), BATCH, seed)
    looks = drawings.run.splits.looks[numbers]
    loss = find_its_place(places, looks)
    return train(looker, data, epochs, 1e-3, folder, loss=loss)


def find_its_place(places, looks):
    """Each drawing must lie nearer to its own place than to all others.

    Args:
        places: float array `(emoji, SPACE)`, the mean of each emoji's
            captions, of length 1.
        looks: int array `(emoji,)`, equal for emoji that look alike.

    Returns:
        A loss of the emoji's rows and the drawings' places.
    """
    same = (looks[:, None] == looks[None, :]).astype("float32")
    same /= same.sum(-1, keepdims=True)

    def loss(true, given):
        logits = SCALE * ops.matmul(given, places.T)
        wanted = ops.take(same, ops.cast(true, "int32"), axis=0)
        return -ops.sum(wanted * ops.log_softmax(logits), -1)

    return loss
