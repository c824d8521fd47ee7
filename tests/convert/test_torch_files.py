"""Files of `torch.save` read without PyTorch, against PyTorch's own reader.

At the end pickles that `torch.save` would never write.
"""

import collections
import os
import pickle
import posixpath
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from builders import FASTEST
from builders import long_but

from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.torch_files import load
from keras_bridgetower.presets.errors import ConversionError

pytestmark = FASTEST


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


DTYPES = "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool"


def numbers(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


def of_dtypes():
    values = numbers(2, 3) * 9
    return {n: values.to(getattr(torch, n)) for n in DTYPES.split()}


def tied():
    table = numbers(5, 4)
    return {"table": table, "decoder": table, "bias": numbers(5)}


def thirds():
    return dict(zip("qkv", numbers(9, 4).chunk(3), strict=True))


# Tensors, or functions that make a state dict of them.
FORMS = {
    "dtypes": of_dtypes,
    # An `OrderedDict`.
    "a_module": lambda: torch.nn.BatchNorm1d(3).state_dict(),
    "tied": tied,
    "thirds": thirds,
    "many_blocks": lambda: {"a": numbers(700, 999), "b": numbers(1 << 18)},
    "odd_names": lambda: {"a b/c": numbers(1), "é": numbers(2), "": numbers(3)},
    "parameter": torch.nn.Parameter(numbers(3, 2)),
    "permuted": numbers(2, 3, 4, 5).permute(2, 0, 3, 1),
    "expanded_by_one": numbers(6)[:, None].expand(6, 1),
    "scalar": torch.tensor(2.5),
    "empty": numbers(0, 3),
    "a_part_of_blocks": numbers(700, 999)[300:, :7],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def assert_read_as_by_torch(path):
    expected = torch.load(path, weights_only=True, map_location="cpu")
    assert_same(open_tensors(path), expected)


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
    write(path, entries_of(path), zip64=zip64)
    assert zipfile.ZipFile(path).testzip() is None
    assert_read_as_by_torch(path)


class Callback:
    """An object in a checkpoint whose class cannot be imported."""

    def __init__(self):
        self.best = {"score": np.float32(0.5)}


def test_objects_beside_a_state_dict_become_foreign(path):
    state = torch.nn.Linear(3, 2).state_dict()
    config = {"config": {"a": [1, -(2**40), 0.5, None]}}
    torch.save(
        {
            "state_dict": state,
            "hyper_parameters": config,
            "callbacks": {Callback: Callback(), "other": {Callback()}},
            "optimizer_states": [{0: {"exp_avg": state["bias"]}}],
            "lr_schedulers": [collections.Counter([3, 3])],
            "scores": np.ones(3),
            "complex": torch.ones(2, dtype=torch.complex64),
        },
        path,
    )
    content, names = load(path)
    assert f"{__name__}.Callback" in names
    assert content["hyper_parameters"] == config
    step = content["optimizer_states"][0][0]["exp_avg"].read()
    np.testing.assert_array_equal(step, state["bias"].numpy())
    with pytest.raises(ConversionError, match="needs the code of"):
        open_tensors(path)


ODD = {
    "complex": (lambda: torch.ones(2) * 1j, "ComplexFloatStorage"),
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
    name = posixpath.normpath(f"pytorch_model/{name}")

    def mutate(path):
        found = entries_of(path) | {name: content}
        kept = {k: v for k, v in found.items() if v is not None}
        write(path, kept, zipped)

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
FOUR, FIVE = (struct.pack("<Q", count)[:5] for count in (4, 5))
LITTLE, BIG = (b"endianq\x02" + flag for flag in (b"\x88", b"\x89"))
ZEROS, DEFLATED = bytes(1 << 20), zipfile.ZIP_DEFLATED
# Changes of a file with two tensors, and the error.
DAMAGED = {
    "flipped": (edited(replaced(ONES, OTHERS)), "CRC-32.*data/0"),
    "big_endian": (entry("byteorder", b"big"), "byte order is b'big'"),
    "version": (entry("version", b"99\n"), "version is b'99"),
    "no_pickle": (entry("data.pkl", None), "no entry 'data.pkl'"),
    "no_storage": (entry("data/0", None), "stored in None bytes, not 16"),
    "short_storage": (entry("data/0", b"1234"), "stored in 4 bytes, not 16"),
    "two_folders": (entry("../more/x", b""), "one folder"),
    "twice": (twice, "each once"),
    "no_crc": (without_checksums, "CRC-32"),
    "bomb": (entry("x", ZEROS, DEFLATED), "smaller than its entries"),
    "compressed": (entry("x", b"x", zipfile.ZIP_BZIP2), "not be compressed"),
    "cut": (edited(lambda data: data[:-30]), "BadZipFile"),
    "old_cut": (old(lambda data: data[:-1]), "It must have"),
    "old_longer": (old(lambda data: data + b"x"), "It must have"),
    "old_start": (old(lambda data: data[:25]), "torch.save"),
    "old_count": (old(replaced(FOUR, FIVE)), "5 numbers of"),
    "old_endian": (old(replaced(LITTLE, BIG)), "byte order"),
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


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    data = pickle.encode_long(value)
    if len(data) < 256:
        return b"\x8a" + bytes([len(data)]) + data
    return b"\x8b" + struct.pack("<I", len(data)) + data


def tensor(offset=0, shape=(2,), strides=(1,), key="0", count=2):
    """The opcodes of a float32 tensor."""

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + number(count)
        + b"tQ"
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89NtR"
    )


def state(value):
    """A dict of one item."""
    return b"\x80\x02}" + text("odd") + value + b"s."


def write_pickle(path, data):
    entries = {"a/data.pkl": data, "a/data/0": b"\0" * 8, "a/version": b"3\n"}
    write(path, entries)


def test_the_opcodes_written_here_make_a_tensor(path):
    """Also one whose axis of one element has an absurd stride."""
    write_pickle(path, state(tensor()))
    assert_same(open_tensors(path), torch.load(path, weights_only=True))
    write_pickle(path, state(tensor(shape=(2, 1), strides=(1, 2**62))))
    assert_same(open_tensors(path), {"odd": torch.zeros(2, 1)})


SHAPES = {
    "negative": tensor(shape=(-2,)),
    "negative_stride": tensor(strides=(-1,)),
    "beyond": tensor(offset=1),
    "too_large": tensor(shape=(2**62, 2**62), strides=(2**62, 1)),
    "large_count": tensor(count=1 << 2000),
    "axes": tensor(shape=(1,) * 500, strides=(1,) * 500),
    "the_same_number": tensor(strides=(0,)),
    "another_entry": tensor(key="../data.pkl"),
    "escape_codes": tensor(key="\x1b[2J"),
    "of_text": state(b"")[:3] + tensor().replace(number(2), text("2")),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_absurd_shapes_are_refused(kind, path):
    write_pickle(path, state(SHAPES[kind]))
    with pytest.raises(ConversionError, match="odd: Tensor|intact") as error:
        open_tensors(path)
    assert len(str(error.value)) < 800 and str(error.value).isprintable()


def colliding():
    """Keys that Python gives one hash."""
    keys = (number(1 + i * ((1 << 61) - 1)) for i in range(100_000))
    return b"(" + b"".join(key + b"N" for key in keys) + b"u"


def doubling(depth=60):
    """A list of a list twice, and so on: 2^60 elements to print."""
    return b"]q\0" + b"](h\0h\0eq\0" * depth


def repeated(value):
    """A dict of 20,000 names of one tensor."""
    names = b"".join(text(f"{i}") + b"h\0" for i in range(20_000))
    return state(value + b"q\0")[:-1] + b"(" + names + b"u."


def flags(count):
    """Flags of a tensor, all false."""
    keys = (b"J" + struct.pack("<i", i) for i in range(count))
    return b"}(" + b"".join(key + b"\x89" for key in keys) + b"u"


BOMBS = {
    "long_shape": repeated(tensor(shape=(1,) * 1_000_000)),
    "long_flags": repeated(tensor()[:-2] + flags(500_000) + b"tR"),
    "long_key": repeated(tensor(key="0" * 3_000_000)),
    "deep_lists": state(b"]" * 100_000 + b"a" * 99_999),
    "colliding_keys": b"\x80\x02}" + colliding() + b".",
    "doubling": state(doubling()),
    "long_number": state(number(1 << 20_000_000)),
    "too_long": state(b"]0" * (1 << 21) + b"N"),
    "many_calls": state(
        b"(" + b"N" * 500_000 + b"tq\0csome\nThing\n" + b"h\0R" * 300_000
    ),
    "most_dicts": state(b"(" + b"}" * 4_000_000 + b"t"),
    "no_stop": b"\x80\x02}",
    "empty": b"",
    "unset_memo": b"\x80\x02h\x07.",
}
# Near the most bytes that are read.
LONG = {"most_dicts"}


@pytest.mark.parametrize("kind", long_but(BOMBS, *BOMBS.keys() - LONG))
def test_bombs_are_refused_in_time(kind, path):
    write_pickle(path, BOMBS[kind])
    started = time.process_time()
    with pytest.raises(ConversionError) as error:
        open_tensors(path)
    assert time.process_time() - started < 10
    assert len(str(error.value)) < 2000


OPCODES = {
    "INST": b"(S'touch executed'\nios\nsystem\n",
    "OBJ": b"(cos\nsystem\nS'touch executed'\no",
    "EXT1": b"\x82\x01",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93",
    "NEWOBJ_EX": b"cos\nsystem\n" + text("touch executed") + b"\x85}\x92",
    "BINPERSID": text("storage") + b"Q",
    "REDUCE": b"cos\nsystem\n" + text("touch executed") + b"\x85R",
    "BUILD": b"cos\nsystem\n}" + text("__setstate__") + b"NsbN0",
    "REDUCE_a_tensor": tensor() + b")R",
    "REDUCE_by_dict": b"ccollections\nOrderedDict\n}R",
    "APPEND_a_dict": b"}Na",
    "getattr": b"cbuiltins\ngetattr\nccollections\nOrderedDict\n"
    + text("__init__")
    + b"\x86R",
}


@pytest.mark.parametrize("kind", OPCODES)
def test_no_opcode_runs_code(kind, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_pickle(path, state(OPCODES[kind]))
    with pytest.raises(ConversionError):
        open_tensors(path)
    # As an item that is skipped, it may also pass.
    write_pickle(path, state(OPCODES[kind] + b"0N"))
    try:
        load(path)
    except ConversionError:
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_foreign_objects_take_anything_and_do_nothing(path):
    foreign = (
        b"csome\nThing\n)\x81}"
        + text("a")
        + b"Nsb"  # BUILD
        + b"(NNe"  # APPENDS
        + b"(NNu"  # SETITEMS
        + b")R"
    )
    write_pickle(path, state(foreign))
    content, names = load(path)
    assert names == ["some.Thing"] and content["odd"].name == "some.Thing"
    write_pickle(path, state(b"csome\n" + b"T" * 9999 + b"\n"))
    assert len(load(path)[0]["odd"].name) == 200
