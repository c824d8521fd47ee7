"""The fusion in ONNX, with which OpenVINO or ONNX Runtime rerank."""

import importlib.util
import json
import pathlib
import tempfile
import time

import keras
import numpy as np

from keras_bridgetower import ExportedModel
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_folder
from keras_bridgetower.tasks.identity import weight_sums

FILE, IDENTITY = "fusion.onnx", "fusion.json"
# Packages that write and run an exported fusion.
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# What its speed is measured with.
_PAIRS, _TURNS = 32, 3
_TEXT = "a red circle left of a small blue square"


def export_fusion(retrieval, folder, pairs=None):
    """Write the fusion of a task, for `ExportedFusion`.

    Args:
        retrieval: a `BridgeTowerRetrieval` in float32, on PyTorch.
        folder: path of a new folder.
        pairs: `(images, texts)`, two lists of one length as `score` takes
            them, some hundreds of typical pairs. The matrix products are then
            computed in int8, with the value ranges of these pairs. None for
            float32.

    Raises:
        ValueError: another backend or dtype, or a folder that exists.
        ImportError: the extra `export` is not installed.

    Example:

    ```python
    export_fusion(models.retrieval, "fusion")
    models = SearchModels.from_preset("my_model", fusion="fusion")
    ```
    """
    backend, dtype = keras.config.backend(), retrieval.compute_dtype
    if (backend, dtype) != ("torch", "float32"):
        raise ValueError(
            "A fusion is exported with KERAS_BACKEND=torch and in float32. "
            f"Received: {backend}, {dtype}"
        )

    def save(part):
        retrieval.export(
            pathlib.Path(part, FILE),
            format="onnx",
            part="fusion",
            calibration=pairs and retrieval.fusion_inputs(*pairs),
        )
        identity = json.dumps(_identity(retrieval))
        pathlib.Path(part, IDENTITY).write_text(identity)

    write_folder(folder, save, name="folder")


def _identity(retrieval):
    """Return the head and checksums of all that an exported fusion holds."""
    (head,) = retrieval.answering_heads
    layers = retrieval.backbone.fusion, retrieval.heads[head]
    sums = weight_sums(weight for layer in layers for weight in layer.weights)
    return {"head": head, "weights": sums}


class ExportedFusion:
    """Runs the fusion that `export_fusion` wrote.

    OpenVINO runs it if it is installed, otherwise ONNX Runtime does.

    Args:
        folder: path of the folder.
        retrieval: the `BridgeTowerRetrieval` whose fusion it is.
        precision: `"float32"`, or `"bfloat16"` with OpenVINO. Products that
            were exported in int8 remain so.

    Call arguments:
        inputs: dict of arrays, as `BridgeTowerRetrieval.state_scorer`
            describes it.

    Returns:
        float32 array `(pairs, outputs)`: the logits of the head that answers.

    Raises:
        ValueError: a folder of another model or without a fusion, or an
            unknown precision.
        ImportError: no program that runs it is installed.
    """

    def __init__(self, folder, retrieval, precision="float32"):
        folder = pathlib.Path(folder)
        identity, file = _identity(retrieval), folder / IDENTITY
        if not file.is_file() or read_json(file) != identity:
            raise ValueError(
                "`fusion` must be a folder that `export_fusion` wrote for "
                f"this model. Received: fusion={str(folder)!r}"
            )
        self._output = f"{identity['head']}_logits"
        is_there = importlib.util.find_spec("openvino")
        needed = is_there or precision != "float32"
        runtime = "openvino" if needed else "onnxruntime"
        self._run = ExportedModel.program(folder / FILE, runtime, precision)

    def __call__(self, inputs):
        return np.asarray(self._run(inputs)[self._output], "float32")


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
    states = rng.normal(size=(_PAIRS, *retrieval.image_states_shape))
    states = states.astype("float32")
    found = {f"{backend} {dtype}": _seconds(retrieval, states)}
    installed = map(importlib.util.find_spec, _NEEDED)
    if (backend, dtype) == ("torch", "float32") and all(installed):
        with tempfile.TemporaryDirectory() as folder:
            for name, fusion in _exported(retrieval, pathlib.Path(folder)):
                found[name] = _seconds(retrieval, states, fusion)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _exported(retrieval, folder):
    """Yield the forms of the exported fusion, with their names."""
    pictures = [np.full((64, 64, 3), 36 * i, "uint8") for i in range(8)]
    for name, pairs in (("float32", None), ("int8", (pictures, [_TEXT] * 8))):
        export_fusion(retrieval, folder / name, pairs)
        yield f"exported {name}", ExportedFusion(folder / name, retrieval)
    if importlib.util.find_spec("openvino"):
        given = folder / "float32", retrieval, "bfloat16"
        yield "exported bfloat16", ExportedFusion(*given)


def _seconds(retrieval, states, fusion=None):
    scorer = retrieval.state_scorer(_TEXT, fusion)
    scorer(states)  # The first pass compiles.
    taken = []
    for _ in range(_TURNS):
        started = time.perf_counter()
        scorer(states)
        taken.append(time.perf_counter() - started)
    return min(taken) / len(states)
