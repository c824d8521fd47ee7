"""Files of `torch.save` read without PyTorch, against PyTorch's own reader."""

import collections
import os
import zipfile

import archives
import numpy as np
import pytest
import torch
from builders import FASTEST

from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.torch_files import load
from keras_bridgetower.presets.errors import ConversionError

pytestmark = FASTEST
DTYPES = "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool"


def numbers(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


def of_dtypes():
    values = numbers(2, 3) * 9
    return {n: values.to(getattr(torch, n)) for n in DTYPES.split()}


def of_a_module():
    layer = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    return layer.state_dict()


def tied():
    table = numbers(5, 4)
    return {"table": table, "decoder": table, "bias": numbers(5)}


def thirds():
    return dict(zip("qkv", numbers(9, 4).chunk(3), strict=True))


# Tensors, or functions that make a state dict of them.
FORMS = {
    "dtypes": of_dtypes,
    "a_module": of_a_module,
    "tied": tied,
    "thirds": thirds,
    "ordered": lambda: collections.OrderedDict(b=numbers(2), a=numbers(3)),
    "many_blocks": lambda: {"a": numbers(700, 999), "b": numbers(1 << 18)},
    "odd_names": lambda: {"a b/c": numbers(1), "é": numbers(2), "": numbers(3)},
    "parameter": torch.nn.Parameter(numbers(3, 2)),
    "transposed": numbers(3, 4).T,
    "permuted": numbers(2, 3, 4, 5).permute(2, 0, 3, 1),
    "steps": numbers(6, 8)[1::2, ::3],
    "a_column": numbers(6, 8)[:, 5],
    "expanded_by_one": numbers(6)[:, None].expand(6, 1),
    "scalar": torch.tensor(2.5),
    "empty": numbers(0, 3),
    "negative_zero": torch.tensor([-0.0, float("inf")]),
    "a_part_of_blocks": numbers(700, 999)[300:, :7],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def assert_read_as_by_torch(path):
    expected = torch.load(path, weights_only=True, map_location="cpu")
    archives.assert_same(open_tensors(path), expected)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_are_read_as_by_torch(form, new, path):
    made = FORMS[form]
    made = made() if callable(made) else {"a": made}
    torch.save(made, path, _use_new_zipfile_serialization=new)
    assert_read_as_by_torch(path)


@pytest.mark.parametrize("zip64", [False, True])
def test_archives_of_other_zip_writers_are_read(zip64, path):
    torch.save(of_dtypes(), path)
    archives.write(path, archives.entries_of(path), zip64=zip64)
    assert zipfile.ZipFile(path).testzip() is None
    assert_read_as_by_torch(path)


class Callback:
    """An object in a checkpoint whose class cannot be imported."""

    def __init__(self):
        self.best = {"score": np.float32(0.5)}


def test_objects_beside_a_state_dict_become_foreign(path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    config = {"config": {"a": [1, -(2**40), 0.5, None]}}
    torch.save(
        {
            "state_dict": layer.state_dict(),
            "hyper_parameters": config,
            "callbacks": {Callback: Callback(), "other": {Callback()}},
            "optimizer_states": [optimizer.state_dict()],
            "lr_schedulers": [collections.Counter([3, 3])],
            "scores": np.ones(3),
            "complex": torch.ones(2, dtype=torch.complex64),
        },
        path,
    )
    content, names = load(path)
    assert f"{__name__}.Callback" in names
    assert content["hyper_parameters"] == config
    step = content["optimizer_states"][0]["state"][0]["exp_avg"].read()
    moments = optimizer.state_dict()["state"][0]["exp_avg"]
    np.testing.assert_array_equal(step, moments.numpy())
    with pytest.raises(ConversionError, match="needs the code of"):
        open_tensors(path)


def float8():
    return numbers(3).to(torch.float8_e4m3fn)


ODD = {
    "complex": (lambda: torch.ones(2) * 1j, "ComplexFloatStorage"),
    "negated": (lambda: (torch.ones(2) * 1j).conj().imag, "Complex|negated"),
    "float8": (float8, "_rebuild_tensor_v3"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
    "expanded": (lambda: torch.ones(1).expand(9, 9), "odd: Tensor of shape"),
    "a_number": (lambda: 3, "odd: int"),
    "an_object": (Callback, "Callback"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("kind", ODD)
def test_other_objects_than_tensors_are_rejected_by_name(kind, path):
    make, found = ODD[kind]
    torch.save({"good": numbers(2), "odd": make()}, path)
    with pytest.raises(ConversionError, match=found):
        open_tensors(path)


def test_more_than_two_tensors_of_one_storage_are_rejected(path):
    table = numbers(64)
    torch.save({f"layer.{i}": table for i in range(3)}, path)
    with pytest.raises(ConversionError, match="768 bytes of tensors, 256"):
        open_tensors(path)


def entry(name, content, zipped=zipfile.ZIP_STORED):
    """A mutator of an entry of a zip file; None removes it."""

    def mutate(path):
        found = archives.entries_of(path) | {name: content}
        kept = {k: v for k, v in found.items() if v is not None}
        archives.write(path, kept, zipped)

    return mutate


def edited(change):
    """A mutator of the bytes of a file."""

    def mutate(path):
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before

    return mutate


def old(change):
    """A mutator of the same tensors in a file of PyTorch before 1.6."""

    def mutate(path):
        state = torch.load(path)
        torch.save(state, path, _use_new_zipfile_serialization=False)
        edited(change)(path)

    return mutate


def twice(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("pytorch_model/data/0", b"other")


def without_checksums(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(thirds(), path)
    finally:
        torch.serialization.set_crc32_options(True)


def replaced(before, after):
    return lambda data: data.replace(before, after)


ONES, OTHERS = (np.float32([1, x]).tobytes() for x in (1, 2))
# Changes of a file with two tensors, and the error.
DAMAGED = {
    "flipped": (edited(replaced(ONES, OTHERS)), "CRC-32.*data/0"),
    "big_endian": (
        entry("pytorch_model/byteorder", b"big"),
        "byte order is b'big'",
    ),
    "version": (entry("pytorch_model/version", b"99\n"), "version is b'99"),
    "no_pickle": (entry("pytorch_model/data.pkl", None), "no entry 'data.pkl'"),
    "no_storage": (
        entry("pytorch_model/data/0", None),
        "stored in None bytes, not 16",
    ),
    "short_storage": (
        entry("pytorch_model/data/0", b"1234"),
        "stored in 4 bytes, not 16",
    ),
    "two_folders": (entry("more/x", b""), "one folder"),
    "twice": (twice, "each once"),
    "no_crc": (without_checksums, "CRC-32"),
    "bomb": (
        entry("pytorch_model/x", bytes(1 << 20), zipfile.ZIP_DEFLATED),
        "smaller than its entries",
    ),
    "compressed": (
        entry("pytorch_model/x", b"x", zipfile.ZIP_BZIP2),
        "not be compressed",
    ),
    "cut": (edited(lambda data: data[:-30]), "BadZipFile"),
    "no_archive": (edited(lambda data: b"weights"), "BadZipFile"),
    "old_cut": (old(lambda data: data[:-1]), "It must have"),
    "old_longer": (old(lambda data: data + b"x"), "It must have"),
    "old_start": (old(lambda data: data[:25]), "torch.save"),
    "old_count": (
        old(replaced(b"\x04\0\0\0\0", b"\x05\0\0\0\0")),
        "5 numbers of",
    ),
    "old_endian": (
        old(replaced(b"endianq\x02\x88", b"endianq\x02\x89")),
        "byte order",
    ),
    "old_type": (old(replaced(b"FloatS", b"QuartS")), "QuartStorage"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused(kind, path):
    change, found = DAMAGED[kind]
    torch.save({"a": torch.ones(4), "b": numbers(5)}, path)
    change(path)
    with pytest.raises(ConversionError, match=found):
        tensors = open_tensors(path)
        for name in tensors.shapes:
            tensors.read(name)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.bin")
    for path in (tmp_path / "fifo.bin", tmp_path, tmp_path / "absent.bin"):
        with pytest.raises(ConversionError, match="regular file"):
            load(path)
        with pytest.raises(ConversionError, match="must be readable JSON"):
            read_json(path)


def test_file_replaced_after_opening_is_rejected(path):
    torch.save({"a": numbers(99_999)}, path)
    tensors = open_tensors(path)
    torch.save({"a": numbers(99_999) + 1, "b": numbers(5)}, path)
    with pytest.raises(ConversionError, match="Fetch it again"):
        tensors.read("a")


def test_parts_of_a_storage_are_read_at_once(path, monkeypatch):
    parts = numbers(200, 64).unbind()
    torch.save({f"{i}": part for i, part in enumerate(parts)}, path)
    tensors, opened = open_tensors(path), []

    def note(self, name, *args):
        opened.append(name)
        return open_entry(self, name, *args)

    open_entry = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", note)
    for name in tensors.shapes:
        tensors.read(name)
    assert len(opened) == 1
