"""The inputs of a turn, the same for all libraries."""

import numpy as np
from PIL import Image

TEXT = "is the red cat on a dog?"
# The authors' number of answers for VQAv2.
ANSWERS = [f"answer {number}" for number in range(3_129)]
BEST = 5  # Answers whose scores are compared.
RATE = 1e-5
MASKED, MASK_ID = 5, 4  # Masked tokens of each text.


def features(batch, side, tokens):
    """Return pictures, token ids and a mask without padding."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(batch, side, side, 3)).astype("float32")
    ids = rng.integers(4, 100, (batch, tokens)).astype("int32")
    return {
        "images": images,
        "token_ids": ids,
        "padding_mask": np.ones((batch, tokens), "int32"),
    }


def pictures_and_text(batch, side, tokens):
    """Return pictures, and the features of one text."""
    x = features(batch, side, tokens)
    images = x.pop("images")
    return images, {name: values[:1] for name, values in x.items()}


def pretraining_rows(batch, side, tokens):
    """Return a batch of both objectives: half of the pairs match.

    A pair that does not match has the next row's picture.
    """
    x = features(batch, side, tokens)
    images, ids = x["images"], x["token_ids"]
    rng = np.random.default_rng(5)
    positions = np.stack(
        [rng.permutation(tokens)[:MASKED] for _ in range(batch)]
    )
    masked = ids.copy()
    np.put_along_axis(masked, positions, MASK_ID, 1)
    match = (np.arange(batch) % 2).astype("int32")
    return images, ids, masked, positions.astype("int32"), match


def soft_scores(batch):
    """Return scores `(batch, answers)`: each row has three right answers."""
    rng = np.random.default_rng(11)
    found = np.zeros((batch, len(ANSWERS)), "float32")
    for row in found:
        row[rng.permutation(len(ANSWERS))[:3]] = 1.0, 0.6, 0.3
    return found


def scores(rows):
    """Return the scores of answers as an array."""
    return np.array([[score for _, score in row] for row in rows])


def write_picture(path):
    """Write a JPEG file of 640 x 480 pixels."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, 3)).astype("uint8")
    picture = Image.fromarray(small).resize((640, 480), Image.BICUBIC)
    picture.save(path, quality=90)


def answer_weights(width):
    """Return random weights of a VQA head, in the order of its layers."""
    rng = np.random.default_rng(7)
    hidden = 4 * width
    return [
        rng.normal(0, 0.05, (2 * width, hidden)).astype("float32"),
        np.zeros(hidden, "float32"),
        np.ones(hidden, "float32"),
        np.zeros(hidden, "float32"),
        rng.normal(0, 0.02, (hidden, len(ANSWERS))).astype("float32"),
        np.zeros(len(ANSWERS), "float32"),
    ]


def load_weights(path):
    """Read `answer_weights` from an `.npz` file."""
    with np.load(path) as file:
        return [file[name] for name in file.files]
