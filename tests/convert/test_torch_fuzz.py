"""Damaged zip checkpoints: one kind of error, or the tensors they hold.

The seeds make every case repeatable; all 5,000 run with -m slow.
"""

import pickletools
import resource
import time
import zipfile

import archives
import keras
import numpy as np
import pytest
import torch

from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.presets.errors import ConversionError

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch",
    reason="the same code with every backend, and this one traces nothing",
)
QUICK, WHOLE = 60, 5000
# Seconds of the process, and bytes, that one case may take.
LONGEST, LARGEST = 5, 100 << 20
KINDS = torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool


def state():
    """Every kind of view in few bytes."""
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(6, 8, generator=generator) for _ in "xy")
    made = {f"{kind}": (x * 2).to(kind) for kind in KINDS}
    made |= dict(zip("qkv", (y + 1).chunk(3), strict=True))
    made |= {"tied": x, "tied.too": x, "transposed": y.T}
    return made | {"one": torch.nn.Parameter(torch.tensor(1.5))}


# Their checksums need not be right.
UNREAD = (".format_version", ".storage_alignment", "serialization_id")


def some_bytes(path, rng):
    """Change bytes anywhere, or in the central directory."""
    data = bytearray(path.read_bytes())
    start = (0, min(archives.directory_of(data).values()))[rng.integers(2)]
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(start, len(data))] = rng.integers(256)
    path.write_bytes(data)


def a_slice(path, rng):
    """Cut bytes out, put some in, or end early."""
    data = path.read_bytes()
    a, b = sorted(rng.integers(len(data), size=2))
    kind = rng.integers(4)
    if kind == 0:
        data = data[:a]
    elif kind == 1:
        data = data[:a] + data[b:]
    elif kind == 2:
        data = data[:a] + rng.bytes(1 + rng.integers(9)) + data[a:]
    else:
        data = data[:a] + data[b : b + 9] + data[a + 9 :]
    path.write_bytes(data)


def the_directory(path, rng):
    """One number of the central directory, its neighbours left as they are."""
    names = sorted(archives.directory_of(path.read_bytes()))
    fields = ("flags", "crc", "compressed", "size", "start")
    values = (0, 1, 8, 0x7FFFFFFF, 0xFFFFFFFE, int(rng.integers(4096)))
    field = fields[rng.integers(5)]
    value = values[rng.integers(6)] & (0xFFFF if field == "flags" else -1)
    archives.patch(path, names[rng.integers(len(names))], field, value)


def the_entries(path, rng):
    """Entries lost, exchanged, compressed, longer or shorter."""
    entries = archives.entries_of(path)
    names = sorted(entries)
    one, other = (names[i] for i in rng.integers(len(names), size=2))
    kind = rng.integers(5)
    method = zipfile.ZIP_DEFLATED if kind == 0 else zipfile.ZIP_STORED
    if kind == 1:
        del entries[one]
    elif kind == 2:
        entries[one], entries[other] = entries[other], entries[one]
    elif kind == 3:
        entries[one] += rng.bytes(1 + rng.integers(9))
    elif kind == 4:
        entries[one] = entries[one][: -1 - rng.integers(9)]
    archives.write(path, entries, method)


def the_opcodes(path, rng):
    """Opcodes of the pickle, whose checksum is right again."""

    def change(data):
        starts = [at for *_, at in pickletools.genops(data)] + [len(data)]
        steps = [
            data[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)
        ]
        for _ in range(rng.integers(1, 4)):
            i, j = rng.integers(len(steps), size=2)
            kind = rng.integers(5)
            if kind == 0:
                del steps[i]
            elif kind == 1:
                steps.insert(i, steps[j])
            elif kind == 2:
                steps[i], steps[j] = steps[j], steps[i]
            elif kind == 3:
                steps[i] = rng.bytes(1) + steps[i][1:]
            else:
                step = bytearray(steps[i])
                step[rng.integers(len(step))] = rng.integers(256)
                steps[i] = bytes(step)
        return b"".join(steps)

    archives.with_pickle(path, change)


MUTATIONS = (some_bytes, a_slice, the_directory, the_entries, the_opcodes)


def opened(path):
    """Its tensors by name, or None where it is refused."""
    try:
        tensors = open_tensors(path)
        return {name: tensors.read(name) for name in tensors.shapes}
    except ConversionError:
        return None


def same(got, state):
    expected = {name: archives.values(t) for name, t in state.items()}
    return set(got) == set(expected) and all(
        got[name].dtype == value.dtype
        and got[name].shape == value.shape
        and got[name].tobytes() == value.tobytes()
        for name, value in expected.items()
    )


def run(tmp_path, count):
    path = tmp_path / "original.bin"
    original = state()
    torch.save(original, path)
    data, kept = path.read_bytes(), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "model.bin"
    for seed in range(count):
        rng = np.random.default_rng(seed)
        path.write_bytes(data)
        MUTATIONS[seed % len(MUTATIONS)](path, rng)
        started = time.process_time()
        got = opened(path)
        assert time.process_time() - started < LONGEST, seed
        if got is not None:
            kept += 1
            # Renamed by the mutation, PyTorch reads them under that name.
            assert same(got, original) or same(
                got, torch.load(path, weights_only=True)
            ), seed
            # The standard library's reader agrees.
            bad = zipfile.ZipFile(path).testzip()
            assert bad is None or bad.endswith(UNREAD), (seed, bad)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{kept} of {count} opened, {count - kept} refused")
    # Both must occur, or the cases test nothing.
    assert 0 < kept < count / 2 and taken * 1024 < LARGEST


def test_damaged_archives(tmp_path):
    run(tmp_path, QUICK)


@pytest.mark.slow
def test_five_thousand_damaged_archives(tmp_path):
    run(tmp_path, WHOLE)
