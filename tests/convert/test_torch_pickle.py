"""Pickles that `torch.save` would never write, in archives that are whole."""

import pickle
import struct
import time

import archives
import pytest
import torch
from builders import FASTEST
from builders import long_but

from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.torch_files import load
from keras_bridgetower.presets.errors import ConversionError

pytestmark = FASTEST


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


def write(path, data):
    entries = {"a/data.pkl": data, "a/data/0": b"\0" * 8, "a/version": b"3\n"}
    archives.write(path, entries)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def test_the_opcodes_written_here_make_a_tensor(path):
    write(path, state(tensor()))
    archives.assert_same(open_tensors(path), {"odd": torch.zeros(2)})
    archives.assert_same(
        open_tensors(path), torch.load(path, weights_only=True)
    )


def test_an_axis_of_one_element_may_have_any_stride(path):
    write(path, state(tensor(shape=(2, 1), strides=(1, 2**62))))
    archives.assert_same(open_tensors(path), {"odd": torch.zeros(2, 1)})


SHAPES = {
    "negative": tensor(shape=(-2,)),
    "negative_stride": tensor(strides=(-1,)),
    "beyond": tensor(offset=1),
    "too_large": tensor(shape=(2**62, 2**62), strides=(2**62, 1)),
    "large_count": tensor(count=1 << 2000),
    "huge_number": tensor(shape=(1 << 100_000,)),
    "axes": tensor(shape=(1,) * 500, strides=(1,) * 500),
    "the_same_number": tensor(strides=(0,)),
    "another_entry": tensor(key="../data.pkl"),
    "escape_codes": tensor(key="\x1b[2J"),
    "of_text": state(b"")[:3] + tensor().replace(number(2), text("2")),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_absurd_shapes_are_refused(kind, path):
    write(path, state(SHAPES[kind]))
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
        b"(" + b"N" * 1_000_000 + b"tq\0csome\nThing\n" + b"h\0R" * 900_000
    ),
    "many_dicts": state(b"(" + b"}" * 800_000 + b"t"),
    "most_dicts": state(b"(" + b"}" * 4_000_000 + b"t"),
    "no_stop": b"\x80\x02}",
    "empty": b"",
    "unset_memo": b"\x80\x02h\x07.",
}
# Near the most bytes that are read.
LONG = {"most_dicts"}


@pytest.mark.parametrize("kind", long_but(BOMBS, *BOMBS.keys() - LONG))
def test_bombs_are_refused_in_time(kind, path):
    write(path, BOMBS[kind])
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
    write(path, state(OPCODES[kind]))
    with pytest.raises(ConversionError):
        open_tensors(path)
    # As an item that is skipped, it may also pass.
    write(path, state(OPCODES[kind] + b"0N"))
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
    write(path, state(foreign))
    content, names = load(path)
    assert names == ["some.Thing"] and content["odd"].name == "some.Thing"
    write(path, state(b"csome\n" + b"T" * 9999 + b"\n"))
    assert len(load(path)[0]["odd"].name) == 200
