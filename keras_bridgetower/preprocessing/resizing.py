"""Bicubic resizing of 8-bit pictures, by Pillow or, faster, by PyTorch."""

import importlib.util
import threading

import numpy as np
from PIL import Image

from keras_bridgetower.checks import check_choice


def by_pillow(image, size):
    """Resize an RGB `PIL.Image` to `(width, height)`."""
    return image.resize(size, Image.Resampling.BICUBIC)


def by_torch(image, size):
    """As `by_pillow`, by vector instructions, in whole-number arithmetic.

    Its weights have 16 bits and Pillow's 32: about one value in a thousand
    differs, by one level for each of the two directions at most.
    """
    import torch

    pixels = torch.from_numpy(_writable(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size[::-1], mode="bicubic", antialias=True
    )
    planes = resized[0].numpy()
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


def _writable(image):
    """The pixels in memory of this thread, until it asks for the next ones.

    PyTorch warns of arrays that cannot be written. To have new memory of that
    size from the system takes longer than the resizing.
    """
    pixels = np.asarray(image)
    held = getattr(_memory, "pixels", None)
    if held is None or held.size < pixels.size:
        held = _memory.pixels = np.empty(pixels.size, pixels.dtype)
    held = held[: pixels.size].reshape(pixels.shape)
    np.copyto(held, pixels)
    return held


_memory = threading.local()
RESIZERS = {"pillow": by_pillow, "torch": by_torch}
# The module that each needs.
MODULES = {"pillow": "PIL", "torch": "torch"}


def check_resizer(resizer):
    """Raise where a resizer does not exist, or its library is missing.

    Raises:
        ValueError: not a key of `RESIZERS`.
        ImportError: the library is not installed.
    """
    check_choice("resizer", resizer, tuple(RESIZERS))
    module = MODULES[resizer]
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"resizer={resizer!r} needs {module}: `pip install {module}`, or "
            f"use resizer='pillow'. Received: resizer={resizer!r}"
        )
