"""Files of `torch.save`, taken apart and put together otherwise."""

import struct
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


def with_pickle(path, change):
    """Put another pickle into a file, its checksum right."""
    entries = entries_of(path)
    name = next(name for name in entries if name.endswith("/data.pkl"))
    entries[name] = change(entries[name])
    write(path, entries)


def directory_of(data):
    """Offset of each header in the central directory, by name."""
    found, at = {}, struct.unpack_from("<I", data, data.rindex(b"PK\5\6") + 16)
    (at,) = at
    while data[at : at + 4] == b"PK\1\2":
        sizes = struct.unpack_from("<3H", data, at + 28)
        name = bytes(data[at + 46 : at + 46 + sizes[0]]).decode()
        found[name] = at
        at += 46 + sum(sizes)
    return found


def patch(path, name, field, value):
    """Change one number of an entry in the central directory."""
    data = bytearray(path.read_bytes())
    form, offset = {
        "flags": ("<H", 8),
        "crc": ("<I", 16),
        "compressed": ("<I", 20),
        "size": ("<I", 24),
        "start": ("<I", 42),
    }[field]
    struct.pack_into(form, data, directory_of(data)[name] + offset, value)
    path.write_bytes(data)


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
