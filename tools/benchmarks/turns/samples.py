"""What the model is asked, the same for all libraries."""

import numpy as np


def features(batch, side, tokens):
    """Pictures, token ids and a mask without padding."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(batch, side, side, 3)).astype("float32")
    ids = rng.integers(4, 100, (batch, tokens)).astype("int32")
    return {
        "images": images,
        "token_ids": ids,
        "padding_mask": np.ones((batch, tokens), "int32"),
    }
