"""Files of `torch.save`, taken apart and put together otherwise."""

import zipfile

import numpy as np
import torch


def entries_of(path):
    """Contents by full name, in the order of the file."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, entries, compression=zipfile.ZIP_STORED, zip64=False):
    """An archive of these entries, with right checksums."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(content)


def values(tensor):
    """A tensor as our reader gives it."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy()


def assert_same(tensors, state):
    """Our `Tensors` hold exactly this state dict."""
    assert set(tensors.shapes) == set(state)
    for name, tensor in state.items():
        expected, got = values(tensor), tensors.read(name)
        assert tensors.shapes[name] == expected.shape == got.shape
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
