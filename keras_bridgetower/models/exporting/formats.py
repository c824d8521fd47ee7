"""Export formats: which backends write them, what opens them, Keras' own."""

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.exporting import by_torch


class Format(NamedTuple):
    """An export format.

    Args:
        backends: tuple of the backends that write it.
        write: callable of a `Function` and the path of the new file.
        suffix: str, suffix of its file; "" if it is a folder.
        opens: str, what opens it, for the documentation.
        packages: tuple of the packages needed to write it.
        runs: bool, True if `runtime.py` runs it.
        verbose: bool, True if `write` takes `verbose`.
        calibrates: bool, True if `write` takes `calibration`.
        takes_quantized: bool, True if it can hold a model quantized by Keras.
    """

    backends: tuple
    write: Callable
    suffix: str
    opens: str
    packages: tuple = ()
    runs: bool = False
    verbose: bool = False
    calibrates: bool = False
    takes_quantized: bool = False


def write_saved_model(function, path, **kwargs):
    """Write a folder that `tf.saved_model.load` opens."""
    if keras.config.backend() == "jax":
        axes = {axis for f in function.features.values() for axis in f.shape}
        kwargs["jax2tf_kwargs"] = {
            # Shapes as JAX writes them, such as "(batch, tokens,)".
            "polymorphic_shapes": [
                {
                    name: f"({', '.join(map(str, feature.shape))},)"
                    for name, feature in function.features.items()
                }
            ],
            "polymorphic_constraints": [
                f"{axis} <= {size}"
                for axis, size in function.limits.items()
                if axis in axes
            ],
            # Gradients would trace it again, without the constraints.
            "with_gradient": False,
        } | kwargs.get("jax2tf_kwargs", {})
    _write_by_keras("tf_saved_model", function, path, **kwargs)


def _write_by_keras(form, function, path, **kwargs):
    signature = {
        name: keras.InputSpec(shape=f.sizes, dtype=f.dtype, name=name)
        for name, f in function.features.items()
    }
    # The method of `keras.Model`: our models override it.
    keras.Model.export(
        function.functional(),
        str(path),
        format=form,
        input_signature=[signature],
        **kwargs,
    )


FORMATS = {
    "onnx": Format(
        ("torch",),
        by_torch.write_onnx,
        ".onnx",
        "`onnxruntime.InferenceSession`",
        ("onnx", "onnxscript"),
        runs=True,
        calibrates=True,
    ),
    "openvino": Format(
        ("torch",),
        by_torch.write_openvino,
        ".xml",
        "`openvino.Core().read_model`",
        ("onnx", "onnxscript", "openvino"),
        runs=True,
        calibrates=True,
    ),
    "torch": Format(
        ("torch",),
        by_torch.write_program,
        ".pt2",
        "`torch.export.load`",
        takes_quantized=True,
    ),
    "tf_saved_model": Format(
        ("tensorflow", "jax"),
        write_saved_model,
        "",
        "`tf.saved_model.load`",
        ("tensorflow",),
        verbose=True,
        takes_quantized=True,
    ),
    "litert": Format(
        ("tensorflow",),
        functools.partial(_write_by_keras, "litert"),
        ".tflite",
        "`ai_edge_litert.interpreter.Interpreter`",
        verbose=True,
    ),
}


def get(name):
    """Return the format of a name, if it can be written here.

    Args:
        name: str, a key of `FORMATS`.

    Raises:
        ValueError: an unknown format, or one that this backend cannot write.
        ImportError: a package needed to write it is not installed.
    """
    check_choice("format", name, tuple(FORMATS))
    backends, backend = FORMATS[name].backends, keras.config.backend()
    if backend not in backends:
        raise ValueError(
            f"`format={name!r}` is written with KERAS_BACKEND set to one of "
            f"{list(backends)}: open a preset of the model there. Received: "
            f"format={name!r} with {backend}"
        )
    check_installed(f"format={name!r}", FORMATS[name].packages)
    return FORMATS[name]


def check_installed(value, packages):
    """Raise if packages that a value of `export` needs are not installed."""
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise ImportError(
            f"`{value}` needs the packages {', '.join(missing)}: "
            "pip install 'keras-bridgetower[export]'"
        )
