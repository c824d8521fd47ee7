"""The inputs of a turn, the same for all libraries."""

import numpy as np

TEXT = "is the red cat on a dog?"
# The authors' number of answers for VQAv2.
ANSWERS = [f"answer {number}" for number in range(3_129)]


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


def write_picture(path):
    """Write a JPEG file of 640 x 480 pixels."""
    from PIL import Image

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
