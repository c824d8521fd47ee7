"""The formats of `export`: which backends write them, and what opens them."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.exporting import by_keras
from keras_bridgetower.models.exporting import by_torch as torch_exports


class Format(NamedTuple):
    """A format that models are exported to.

    Args:
        backends: tuple of the backends that write it.
        write: callable of a `Function` and the path of the new file.
        suffix: str, how the name of its file ends; "" where it is a folder.
        opens: str, what opens it, for the documentation.
        packages: tuple of the packages that writing it needs.
        runs: bool, whether `runtime.py` runs it.
        tells: bool, whether writing it takes `verbose`.
        quantizes: bool, whether writing it takes `calibration`.
        takes_quantized: bool, whether it can hold a model that Keras has
            quantized.
    """

    backends: tuple
    write: Callable
    suffix: str
    opens: str
    packages: tuple = ()
    runs: bool = False
    tells: bool = False
    quantizes: bool = False
    takes_quantized: bool = False


FORMATS = {
    "onnx": Format(
        ("torch",),
        torch_exports.write_onnx,
        ".onnx",
        "`onnxruntime.InferenceSession`",
        ("onnx", "onnxscript"),
        runs=True,
        quantizes=True,
    ),
    "openvino": Format(
        ("torch",),
        torch_exports.write_openvino,
        ".xml",
        "`openvino.Core().read_model`",
        ("onnx", "onnxscript", "openvino"),
        runs=True,
        quantizes=True,
    ),
    "torch": Format(
        ("torch",),
        torch_exports.write_program,
        ".pt2",
        "`torch.export.load`",
        takes_quantized=True,
    ),
    "tf_saved_model": Format(
        ("tensorflow", "jax"),
        by_keras.write_saved_model,
        "",
        "`tf.saved_model.load`",
        ("tensorflow",),
        tells=True,
        takes_quantized=True,
    ),
    "litert": Format(
        ("tensorflow",),
        by_keras.write_litert,
        ".tflite",
        "`ai_edge_litert.interpreter.Interpreter`",
        tells=True,
    ),
}


def format_of(name):
    """The format of a name, if it can be written here.

    Args:
        name: str, a key of `FORMATS`.

    Raises:
        ValueError: no such format, or one that this backend does not write.
        ImportError: a package that writing it needs is not installed.
    """
    check_choice("format", name, tuple(FORMATS))
    refused = refusal(name, keras.config.backend())
    if refused:
        raise ValueError(refused)
    found = FORMATS[name]
    check_installed(f"format={name!r}", found.packages)
    return found


def check_installed(value, packages):
    """Refuse a value of `export` that needs packages which are not there."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise ImportError(
            f"`{value}` needs the packages {', '.join(missing)}: "
            "pip install 'keras-bridgetower[export]'"
        )


def refusal(name, backend):
    """Why a backend does not write a format, and what to do; None if it does.

    Args:
        name: str, a key of `FORMATS`.
        backend: str, one of `backend.names.BACKENDS`.
    """
    backends = FORMATS[name].backends
    if backend in backends:
        return None
    return (
        f"`format={name!r}` is written with KERAS_BACKEND set to one of "
        f"{list(backends)}. Save the model by `save_to_preset`, open it there "
        f"by `from_preset`, and export. Received: format={name!r} with "
        f"{backend}"
    )
