"""Runs exported files by what opens each format, for the tests."""

import keras
import numpy as np
import pytest

from keras_bridgetower.apps import exported
from keras_bridgetower.models.exporting import runtime
from keras_bridgetower.models.exporting.exported import FORMATS
from keras_bridgetower.tasks.by_name import open_verb

BACKEND = keras.config.backend()
ON_TORCH = pytest.mark.skipif(BACKEND != "torch", reason="written on PyTorch")
# Of a module of tests: converters warn of themselves, and PyTorch records what
# it traces, at length.
MARKS = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("no_records_of_traces"),
]
WRITTEN = [name for name, f in FORMATS.items() if BACKEND in f.backends]
# Packages that a test of a format needs.
NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


def need(form):
    for package in NEEDED.get(form, ()):
        pytest.importorskip(package, reason="the extra `export`")


def check_shipped(preset, method, *inputs):
    """Check that the shipped form of a preset equals its task in Keras."""
    pytest.importorskip("onnxruntime")
    verb = {"answer": "vqa", "score": "retrieval", "embed": "embed_images"}
    shipped = exported.ShippedExport(preset, verb[method])
    assert shipped.is_there(), f"run tools/ship_exports.py {preset}"
    quick = shipped.open(shipped.folder)
    task = open_verb(preset, verb[method])
    for given in inputs:
        found, expected = (getattr(x, method)(**given) for x in (quick, task))
        if method == "answer":
            for row, wanted in zip(found, expected, strict=True):
                assert [name for name, _ in row] == [name for name, _ in wanted]
                assert row.known == wanted.known
            found, expected = (
                [[score for _, score in row] for row in rows]
                for rows in (found, expected)
            )
        np.testing.assert_allclose(found, expected, atol=1e-5)


def run(form, path, inputs):
    """dict of the outputs by name; of LiteRT with names of its own."""
    return _RUN[form](str(path), inputs)


def by_name(outputs):
    """A task's outputs with the names that an exported file has."""
    flat = {}
    for names, value in keras.tree.flatten_with_path(outputs):
        value = keras.ops.convert_to_numpy(value)
        flat[".".join(map(str, names)) or "output"] = value
    return flat


def _by_runtime(path, inputs):
    run, _ = runtime.load(path)
    return run(inputs)


def _program(path, inputs):
    import torch

    run = torch.export.load(path).module()
    return by_name(run({k: torch.from_numpy(v) for k, v in inputs.items()}))


def _saved_model(path, inputs):
    import tensorflow as tf

    # The module stays: its weights go with it.
    loaded = tf.saved_model.load(path)
    return by_name(loaded.serve({k: tf.constant(v) for k, v in inputs.items()}))


def _litert(path, inputs):
    import tensorflow as tf

    return tf.lite.Interpreter(path).get_signature_runner()(**inputs)


_RUN = {
    "onnx": _by_runtime,
    "openvino": _by_runtime,
    "torch": _program,
    "tf_saved_model": _saved_model,
    "litert": _litert,
}
