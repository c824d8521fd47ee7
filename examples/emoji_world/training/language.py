"""First stage: the text tower learns English from MiniLM, without pictures.

It learns to give the vector that MiniLM gives, of WordNet's sentences and of
captions, and to name tokens that are masked.
"""

import keras
import numpy as np
from keras import ops

from emoji_world.training.model import SPACE
from emoji_world.training.model import Batches
from emoji_world.training.model import train

BATCH, MASKS = 256, 3


def know_words(task, space):
    """Let each token start with what the teacher says of it as a word.

    Args:
        task: a contrastive task.
        space: `Space`.
    """
    tokenizer = task.preprocessor.tokenizer
    size = tokenizer.vocabulary_size()
    words = [tokenizer.id_to_token(i) for i in range(size)]
    words = [word.replace("\u0120", "") or " " for word in words]
    (table,) = (
        variable
        for variable in task.backbone.text_tower.weights
        if tuple(variable.shape) == (size, SPACE)
    )
    table.assign(0.7 * space.of(words))


def learn(task, texts, vectors, epochs, folder, seed):
    """Train the text tower of a contrastive task; returns the history."""
    # MiniLM reads no capitals, our tokenizer does.
    texts = [*texts, *(text.capitalize() for text in texts[::6])]
    vectors = np.concatenate([vectors, vectors[::6]])
    backbone, tokenizer = task.backbone, task.preprocessor.tokenizer
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask", "positions")
    }
    states = backbone.text_tower(
        {name: inputs[name] for name in ("token_ids", "padding_mask")}
    )[-1]
    vector = task.heads["itc"]({"text": states[:, 0]})["text"]
    masked = ops.take_along_axis(states, inputs["positions"][..., None], 1)
    tokens = keras.layers.Dense(tokenizer.vocabulary_size(), name="tokens")
    student = keras.Model(
        inputs,
        {"vector": keras.layers.Identity()(vector), "tokens": tokens(masked)},
    )
    encoded = tokenizer(texts)
    lengths = (encoded != tokenizer.pad_token_id).sum(-1)
    data = Batches(
        _masked_batches(tokenizer, encoded, lengths, vectors),
        len(texts),
        BATCH,
        seed,
        _rows_of_like_length(lengths),
    )
    return train(
        student,
        data,
        epochs,
        2e-3,
        folder,
        loss={"vector": like_the_teacher, "tokens": _named_tokens},
        loss_weights={"vector": 1.0, "tokens": 0.1},
    )


def like_the_teacher(true, given):
    """Cosine to the teacher, and the likeness of the batch's texts."""
    cosine = 1.0 - ops.sum(true * given, -1)
    wanted = ops.softmax(20.0 * ops.matmul(true, ops.transpose(true)))
    logs = ops.log_softmax(20.0 * ops.matmul(given, ops.transpose(given)))
    likeness = ops.sum(wanted * (ops.log(wanted + 1e-9) - logs), -1)
    return 2.0 * cosine + likeness


def _named_tokens(true, given):
    """Cross-entropy of the masked tokens; -1 marks places without one."""
    there = ops.cast(true >= 0, given.dtype)
    losses = ops.sparse_categorical_crossentropy(
        ops.maximum(true, 0), given, from_logits=True
    )
    return ops.sum(losses * there) / ops.maximum(ops.sum(there), 1.0)


def _masked_batches(tokenizer, encoded, lengths, vectors):
    """Batches in which a third of the texts have a fifth of tokens masked."""
    pad, mask = tokenizer.pad_token_id, tokenizer.mask_token_id

    def batch(rows, rng):
        ids = encoded[rows, : lengths[rows].max()].copy()
        positions = np.zeros((len(rows), MASKS), "int32")
        wanted = np.full((len(rows), MASKS), -1, "int32")
        for i in np.flatnonzero(rng.random(len(rows)) < 0.33):
            words = lengths[rows[i]] - 2
            count = min(MASKS, max(1, words // 5))
            places = 1 + rng.permutation(words)[:count]
            positions[i, : len(places)] = places
            wanted[i, : len(places)] = ids[i, places]
            if words > 2:
                ids[i, places] = mask
        x = {
            "token_ids": ids,
            "padding_mask": (ids != pad).astype("int32"),
            "positions": positions,
        }
        return x, {"vector": vectors[rows], "tokens": wanted}

    return batch


def _rows_of_like_length(lengths):
    """An order in which texts of one batch hardly pad each other."""

    def order(rng):
        rows = np.argsort(lengths + 2.0 * rng.random(len(lengths)))
        batches = rows[: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
        return rng.permutation(batches).ravel()

    return order
