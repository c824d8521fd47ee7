"""Time the fusion for a pair, in each form that is installed."""

import importlib.util
import pathlib
import tempfile
import time

import keras
import numpy as np

from keras_bridgetower.apps.search.fusions import ExportedFusion
from keras_bridgetower.apps.search.fusions import export_fusion

PAIRS, TURNS = 32, 3
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # To write and run them.
TEXT = "a red circle left of a small blue square"


def fusion_speeds(retrieval):
    """Time reranking by stored states, in each form of the fusion.

    Besides the task itself these are the folders that `export_fusion` writes,
    in float32, bfloat16 and int8. They need PyTorch, a task in float32, and the
    extra `export`, and are left out otherwise.

    Args:
        retrieval: a `BridgeTowerRetrieval`.

    Returns:
        dict from a form, such as `"exported int8"`, to its seconds for a pair,
        fastest first.
    """
    backend, dtype = keras.config.backend(), retrieval.compute_dtype
    rng = np.random.default_rng(0)
    states = rng.normal(size=(PAIRS, *retrieval.image_states_shape))
    states = states.astype("float32")
    found = {f"{backend} {dtype}": _seconds(retrieval, states)}
    installed = map(importlib.util.find_spec, NEEDED)
    if (backend, dtype) == ("torch", "float32") and all(installed):
        with tempfile.TemporaryDirectory() as folder:
            for name, fusion in _exported(retrieval, pathlib.Path(folder)):
                found[name] = _seconds(retrieval, states, fusion)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _exported(retrieval, folder):
    """Yield the forms of the exported fusion, with their names."""
    pictures = [np.full((64, 64, 3), 36 * i, "uint8") for i in range(8)]
    for name, pairs in (("float32", None), ("int8", (pictures, [TEXT] * 8))):
        export_fusion(retrieval, folder / name, pairs)
        yield f"exported {name}", ExportedFusion(folder / name, retrieval)
    if importlib.util.find_spec("openvino"):
        given = folder / "float32", retrieval, "bfloat16"
        yield "exported bfloat16", ExportedFusion(*given)


def _seconds(retrieval, states, fusion=None):
    scorer = retrieval.state_scorer(TEXT, fusion)
    scorer(states)  # The first pass compiles.
    taken = []
    for _ in range(TURNS):
        started = time.perf_counter()
        scorer(states)
        taken.append(time.perf_counter() - started)
    return min(taken) / len(states)
