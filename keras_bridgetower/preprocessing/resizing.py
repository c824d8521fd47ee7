"""Bicubic resizing of 8-bit pictures, by Pillow or, faster, by PyTorch."""

import importlib.util

import numpy as np
from PIL import Image

from keras_bridgetower.validation import check_choice


def by_pillow(image, size):
    """Resize an RGB `PIL.Image` to `(width, height)`."""
    return image.resize(size, Image.Resampling.BICUBIC)


def by_torch(image, size):
    """As `by_pillow`, by vector instructions, in whole-number arithmetic.

    Its weights have 16 bits and Pillow's 32: about one value in a thousand
    differs, by one level for each of the two directions at most.
    """
    import torch

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size[::-1], mode="bicubic", antialias=True
    )
    # Channels come first; NumPy would put them last under Python's lock.
    return Image.fromarray(resized[0].permute(1, 2, 0).contiguous().numpy())


RESIZERS = {"pillow": by_pillow, "torch": by_torch}


def check_resizer(resizer):
    """Raise where a resizer does not exist, or its library is missing.

    Raises:
        ValueError: not a key of `RESIZERS`.
        ImportError: PyTorch is not installed.
    """
    check_choice("resizer", resizer, tuple(RESIZERS))
    if resizer == "torch" and importlib.util.find_spec("torch") is None:
        raise ImportError(
            "resizer='torch' needs PyTorch: `pip install torch`, or use "
            "resizer='pillow'. Received: resizer='torch'"
        )
