"""Reads the pickle in a `torch.save` file without running code from it.

Python's own unpickler calls any function that a file names. This one knows the
opcodes that `torch.save` writes, plain values and tensors. Any other class or
function that a file names becomes a `Foreign`: an object that does nothing.
"""

import pickletools

import ml_dtypes
import numpy as np

from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.torch_tensors import Foreign
from keras_bridgetower.convert.torch_tensors import Storage
from keras_bridgetower.convert.torch_tensors import Tensor

# The largest pickle in bytes and in opcodes. That of a large model with the
# state of its optimizer has less than 1 MB and 200,000 opcodes.
MOST_BYTES, MOST_OPCODES = 4 << 20, 500_000
# Types of keys that a dict may have. Python hashes them without recursion, and
# a file cannot choose keys with equal hashes: the hashes of text are random,
# and those of integers below `LARGEST_KEY` differ.
KEYS = (str, int, float, bool, type(None), Foreign)
LARGEST_KEY = 1 << 60

STORAGES = {
    "Float": "float32",
    "Half": "float16",
    "BFloat16": ml_dtypes.bfloat16,
    "Double": "float64",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}


class Damaged(Exception):
    """The pickle is damaged; the message gives the reason."""


def _expect(true, reason):
    if not true:
        raise Damaged(reason)


def _ordered_dict():
    return {}


def _tensor(storage, offset, shape, strides, grad, hooks, flags=None):
    flags = {} if flags is None else flags
    _expect(isinstance(storage, Storage), "a tensor without a storage")
    _expect(
        (type(shape), type(strides), type(flags)) == (tuple, tuple, dict),
        "a tensor without a shape",
    )
    return Tensor(storage, offset, shape, strides, flags)


def _parameter(tensor, grad, hooks):
    return tensor


# Functions that a file may call. The arguments come from the file.
FUNCTIONS = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
DTYPES = {
    f"torch {name}Storage": np.dtype(dtype) for name, dtype in STORAGES.items()
}


def load(archive):
    """Read the object in an archive: plain values, tensors and `Foreign`s.

    Args:
        archive: `Archive`.

    Returns:
        `(value, names)`: the object, and the list of the classes and
        functions that became `Foreign`.

    Raises:
        ConversionError: the pickle is damaged, is too long, or holds other
            things than `torch.save` writes.
    """
    size = archive.size("data.pkl")
    if size > MOST_BYTES:
        raise ConversionError(
            f"The names and shapes of a file must take at most {MOST_BYTES} "
            f"bytes, not {size}. Save its state dict alone.",
            archive.path,
        )
    data = bytearray(size)
    archive.read_into("data.pkl", data)
    machine = _Machine(archive)
    try:
        value = machine.run(bytes(data))
    except Exception as error:  # Whatever a damaged pickle makes it raise.
        reason = str(error) if isinstance(error, Damaged) else "damaged pickle"
        raise ConversionError(
            "The file must be an intact file of `torch.save` with tensors and "
            f"plain values: {reason}. Fetch it again, or open it with PyTorch "
            "and save its state dict.",
            archive.path,
        ) from None
    return value, sorted(machine.foreign)


class _Machine:
    """Pickle's virtual machine: a stack, marks and a memo."""

    def __init__(self, archive):
        self.archive = archive
        self.stack, self.marks, self.memo = [], [], {}
        self.foreign = set()

    def run(self, data):
        for count, step in enumerate(pickletools.genops(data)):
            opcode, argument, _ = step
            _expect(count < MOST_OPCODES, "more opcodes than any model needs")
            if opcode.name in VALUES:
                self.stack.append(argument)
            elif opcode.name in MAKERS:
                self.stack.append(MAKERS[opcode.name]())
            else:
                _expect(opcode.name in STEPS, f"opcode {opcode.name}")
                STEPS[opcode.name](self, argument)
        (value,) = self.stack
        _expect(not self.marks, "an open mark")
        return value

    def mark(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self):
        values, self.stack = self.stack, self.marks.pop()
        return values

    def pack(self, _):
        values = tuple(self.since_mark())
        self.stack.append(values)

    def pack_last(self, count):
        _expect(len(self.stack) >= count, "an empty stack")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def put(self, index):
        self.memo[index] = self.stack[-1]

    def get(self, index):
        self.stack.append(self.memo[index])

    def append_all(self, values):
        target = self.stack[-1]
        if not isinstance(target, Foreign):
            _expect(type(target) is list, "values for no list")
            target.extend(values)

    def set_all(self, values):
        target = self.stack[-1]
        _expect(len(values) % 2 == 0, "a key without a value")
        if isinstance(target, Foreign):
            return
        _expect(type(target) is dict, "items for no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            _expect(type(key) in KEYS, f"a key of type {type(key).__name__}")
            small = type(key) is not int or abs(key) < LARGEST_KEY
            _expect(small, "a key that is too large")
            target[key] = value

    def find(self, name):
        found = FUNCTIONS.get(name) or DTYPES.get(name)
        if found is None:
            found = Foreign(name.replace(" ", "."))
            self.foreign.add(found.name)
        self.stack.append(found)

    def call(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Foreign):
            _expect(function in FUNCTIONS.values(), "a call of no function")
            _expect(type(arguments) is tuple, "a call without arguments")
            function = function(*arguments)
        self.stack.append(function)

    def build(self, _):
        """Set attributes: of a dict and a `Foreign` they are dropped."""
        self.stack.pop()
        _expect(type(self.stack[-1]) in (dict, Foreign), "attributes")

    def persistent(self, _):
        kind, dtype, key, _, count = self.stack.pop()
        _expect(
            kind == "storage"
            and isinstance(dtype, np.dtype | Foreign)
            and type(key) is str
            and type(count) is int,
            "no storage",
        )
        self.stack.append(Storage(self.archive, key, dtype, count))


# Opcodes that push their argument.
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
}
# Opcodes that push a new value.
MAKERS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
# Opcodes that do something else.
STEPS = {
    "PROTO": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.pack,
    "TUPLE1": lambda machine, _: machine.pack_last(1),
    "TUPLE2": lambda machine, _: machine.pack_last(2),
    "TUPLE3": lambda machine, _: machine.pack_last(3),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": lambda machine, _: machine.append_all([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append_all(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_all(
        [machine.stack.pop(-2), machine.stack.pop()]
    ),
    "SETITEMS": lambda machine, _: machine.set_all(machine.since_mark()),
    "GLOBAL": _Machine.find,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
