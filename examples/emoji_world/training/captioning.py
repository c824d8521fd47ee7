"""The text tower learns what captions mean here, and keeps its English.

MiniLM, its first teacher, holds many emoji for nearly the same. Half of each
batch are captions, which must find their emoji among all; the other half are
sentences of WordNet. These must bring to mind the emoji that they bring to
MiniLM's mind, and stay near where MiniLM has them.
"""

import keras
import numpy as np
from keras import ops

from emoji_world.training.looking import SCALE
from emoji_world.training.model import SPACE
from emoji_world.training.model import Batches
from emoji_world.training.model import train

CAPTIONS, SENTENCES = 128, 128
# How much it counts how far a sentence moves, beside what it brings to mind.
ENGLISH = 5.0
# How sharp MiniLM's shares are: at 25, a sentence that says what an emoji is
# gives most of its share to a few.
SHARPNESS = 25.0


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
    reminders = Reminders(run, space)
    tokenizer = task.preprocessor.tokenizer

    def batch(rows, rng):
        said = [run.caption(numbers[row], rng) for row in rows]
        sentences, vectors, shares = reminders.draw(SENTENCES, rng)
        ids = tokenizer([*said, *sentences])
        wanted = np.zeros((len(ids), SPACE + len(places)), "float32")
        wanted[len(said) :, :SPACE] = vectors
        wanted[: len(said), SPACE:] = same[rows]
        wanted[len(said) :, SPACE:] = shares @ same
        mask = (ids != tokenizer.pad_token_id).astype("int32")
        return {"token_ids": ids, "padding_mask": mask}, wanted

    data = Batches(batch, len(numbers), CAPTIONS, run.seed)
    return train(reader, data, epochs, 1e-3, folder, loss=find_it(places))


class Reminders:
    """Sentences with the emoji that they bring to MiniLM's mind.

    None holds a word that is held out: what it means for emoji stays unsaid.

    Args:
        run: `Run`.
        space: `Space`.
    """

    def __init__(self, run, space):
        self._space, self._teacher = space, run.teacher
        said = [run.teacher.of(texts) for texts in space.captions.values()]
        self._emoji = np.stack([v.astype("float32").mean(0) for v in said])
        self._emoji /= np.linalg.norm(self._emoji, axis=1, keepdims=True)
        self._sentences = np.array(
            [text for text in space.texts if not run.splits.keeps_back(text)]
        )

    def draw(self, count, rng):
        """Sentences, their vectors, and MiniLM's share of each emoji."""
        rows = rng.integers(len(self._sentences), size=count)
        sentences = self._sentences[rows].tolist()
        near = self._teacher.of(sentences).astype("float32") @ self._emoji.T
        shares = np.exp(SHARPNESS * (near - near.max(1, keepdims=True)))
        shares /= shares.sum(1, keepdims=True)
        return sentences, self._space.of(sentences), shares


def find_it(places):
    """A loss of texts by the places that they must find, and stay near.

    Args:
        places: as `learn` takes them.

    Returns:
        A loss of `(rows, SPACE + places)`, a vector to stay near (or zeros)
        and the share of each place; and of where the texts are put.
    """

    def loss(true, given):
        stay, wanted = true[:, :SPACE], true[:, SPACE:]
        found = ops.log_softmax(SCALE * ops.matmul(given, places.T))
        moved = ops.sum(stay * stay, -1) - ops.sum(stay * given, -1)
        return ENGLISH * moved - ops.sum(wanted * found, -1)

    return loss
