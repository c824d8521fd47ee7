"""The fusion in ONNX, with which OpenVINO or ONNX Runtime rerank."""

import importlib.util
import json
import pathlib

import numpy as np

from keras_bridgetower import ExportedModel
from keras_bridgetower.apps.predict.identity import model_checksum
from keras_bridgetower.checks import check_choice
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_folder

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
FILE, IDENTITY = "fusion.onnx", "fusion.json"


def export_fusion(retrieval, folder, pairs=None):
    """Write the fusion of a task, for `ExportedFusion`.

    Args:
        retrieval: a `BridgeTowerRetrieval` with a preprocessor, on PyTorch.
        folder: path of a new folder.
        pairs: `(images, texts)`, two lists of one length as `score` takes
            them, some hundreds of typical pairs. The matrix products are then
            computed in int8, with the value ranges of these pairs. None for
            float32.

    Raises:
        ValueError: another backend, or a folder that exists.
        ImportError: the extra `export` is not installed.

    Example:

    ```python
    export_fusion(models.retrieval, "fusion")
    models = SearchModels.from_preset("my_model", fusion="fusion")
    ```
    """
    calibration = None
    if pairs is not None:
        images, texts = pairs
        calibration = retrieval.fusion_inputs(images, texts)
    identity = {"model": model_checksum(retrieval)}

    def save(part):
        retrieval.export(
            pathlib.Path(part, FILE),
            format="onnx",
            part="fusion",
            calibration=calibration,
        )
        pathlib.Path(part, IDENTITY).write_text(json.dumps(identity))

    write_folder(folder, save, name="folder")


class ExportedFusion:
    """Runs the fusion that `export_fusion` wrote.

    OpenVINO runs it if it is installed, otherwise ONNX Runtime does.

    Args:
        folder: path of the folder.
        retrieval: the `BridgeTowerRetrieval` whose fusion it is.
        precision: `"float32"`, or `"bfloat16"`, which only OpenVINO computes.
            Products that are in int8 remain so.

    Call arguments:
        inputs: dict of float32 arrays `"text_states"` and `"image_states"`,
            `(pairs, layers, tokens, width)`, and int32 `"padding_mask"`.

    Returns:
        float32 array `(pairs, outputs)`: the logits of the head that answers.

    Raises:
        ValueError: a folder of another model or without a fusion, or an
            unknown precision.
        ImportError: no program that runs it is installed.
    """

    def __init__(self, folder, retrieval, precision="float32"):
        check_choice("precision", precision, tuple(PRECISIONS))
        folder = pathlib.Path(folder)
        known = read_json(folder / IDENTITY) if folder.is_dir() else {}
        if known.get("model") != model_checksum(retrieval):
            raise ValueError(
                "`fusion` must be a folder that `export_fusion` wrote of the "
                f"same weights. Received: fusion={str(folder)!r}"
            )
        (head,) = retrieval.answering_heads
        self._output = f"{head}_logits"
        by_openvino = precision != "float32" or importlib.util.find_spec(
            "openvino"
        )
        self._run = ExportedModel.program(
            folder / FILE, PRECISIONS[precision] if by_openvino else None
        )

    def __call__(self, inputs):
        return np.asarray(self._run(inputs)[self._output], "float32")
