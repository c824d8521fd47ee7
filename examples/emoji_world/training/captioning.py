"""The text tower learns what captions mean here, and keeps its English.

MiniLM, its first teacher, holds many emoji for nearly the same. Half of each
batch are captions, which must find their emoji among all; the other half are
sentences of WordNet, which must stay where MiniLM has them.
"""

import keras
import numpy as np
from keras import ops

from emoji_world.training.looking import SCALE
from emoji_world.training.looking import find_its_name
from emoji_world.training.model import SPACE
from emoji_world.training.model import Batches
from emoji_world.training.model import train

CAPTIONS, SENTENCES = 128, 128
# How much a sentence counts that moves, beside a caption that is not found.
ENGLISH = 10.0


def learn(task, run, space, places, same, epochs, folder):
    """Train the text side of a contrastive task; returns the history.

    Args:
        task: a contrastive task that knows English.
        run: `Run`.
        space: `Space`.
        places: float array `(places, SPACE)` of length 1, what a caption can
            find.
        same: float array `(emoji of training, places)`, for each emoji the
            share of each place that is right.
        epochs: int.
        folder: path; a copy of the unfinished run lives in it.
    """
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    states = task.backbone.text_tower(inputs)[-1]
    reader = keras.Model(
        inputs, task.heads["itc"]({"text": states[:, 0]})["text"]
    )
    numbers = list(space.captions)
    sentences = np.asarray(space.texts)
    vectors = space.of(space.texts)
    tokenizer = task.preprocessor.tokenizer

    def batch(rows, rng):
        said = [run.caption(numbers[row], rng) for row in rows]
        others = rng.integers(len(sentences), size=SENTENCES)
        ids = tokenizer([*said, *sentences[others].tolist()])
        wanted = np.zeros((len(ids), 1 + SPACE), "float32")
        wanted[: len(said), 0] = rows
        wanted[len(said) :, 0] = -1.0  # No emoji.
        wanted[len(said) :, 1:] = vectors[others]
        mask = (ids != tokenizer.pad_token_id).astype("int32")
        return {"token_ids": ids, "padding_mask": mask}, wanted

    data = Batches(batch, len(numbers), CAPTIONS, run.seed)
    loss = find_it_or_stay(places, same)
    return train(reader, data, epochs, 1e-3, folder, loss=loss)


def find_it_or_stay(places, same):
    """A loss of captions by their emoji, and of sentences by their vector.

    Args:
        places, same: as `learn` takes them.

    Returns:
        A loss of `(rows, 1 + SPACE)`, the row of the emoji or -1 and the
        vector of a sentence, and of where the texts are put.
    """
    named = find_its_name(same)

    def loss(true, given):
        row = true[:, 0]
        found = named(ops.maximum(row, 0.0), SCALE * given @ places.T)
        moved = 1.0 - ops.sum(true[:, 1:] * given, -1)
        return ops.where(row < 0.0, ENGLISH * moved, found)

    return loss
