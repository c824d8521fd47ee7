"""The fusion in ONNX, with which OpenVINO or ONNX Runtime rerank."""

import importlib.util
import json
import pathlib

import keras
import numpy as np

from keras_bridgetower import ExportedModel
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_folder
from keras_bridgetower.tasks.identity import weight_sums

FILE, IDENTITY = "fusion.onnx", "fusion.json"


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
        inputs: dict of arrays, as `BridgeTowerRetrieval.score_states`
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
        found = importlib.util.find_spec("openvino") or precision != "float32"
        runtime = "openvino" if found else "onnxruntime"
        self._run = ExportedModel.program(folder / FILE, runtime, precision)

    def __call__(self, inputs):
        return np.asarray(self._run(inputs)[self._output], "float32")
