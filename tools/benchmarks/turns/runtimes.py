"""A forward pass of an exported matching task, without Keras."""

import pathlib
import tempfile

import numpy as np

from turns.samples import features

# Rows that ranges of int8 are measured on. Of a model with random weights the
# speed counts, not what it says.
CALIBRATED = 8


class ExportedForward:
    """Abstract: a task that this process exported, in another runtime.

    Args:
        folder: path of a `transformers` folder.
        contender: `Contender`; `dtype` may be `"int8"`.
    """

    # As `export` takes it.
    form: str

    def __init__(self, folder, contender):
        import keras_bridgetower as kbt
        from keras_bridgetower.models.exporting.formats import FORMATS

        task = kbt.BridgeTowerRetrieval.from_preset(folder)
        self.side = task.input["images"].shape[1]
        calibration = None
        if contender.dtype == "int8":
            calibration = features(CALIBRATED, self.side, 32)
        self._kept = tempfile.TemporaryDirectory()
        suffix = FORMATS[self.form].suffix
        path = pathlib.Path(self._kept.name) / f"model{suffix}"
        task.export(path, format=self.form, calibration=calibration)
        del task
        self.model = self.opened(path, contender.dtype)

    def opened(self, path, dtype):
        """A callable from a dict of arrays to the logits."""
        raise NotImplementedError

    def run(self, batch, tokens):
        x = features(batch, self.side, tokens)
        return lambda: np.asarray(self.model(x), "float32")


class OnnxRuntimeForward(ExportedForward):
    """By ONNX Runtime, as it is installed."""

    form = "onnx"

    def opened(self, path, dtype):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda x: session.run(None, x)[0]


class OpenVINOForward(ExportedForward):
    """By OpenVINO, on the processor."""

    form = "openvino"

    def opened(self, path, dtype):
        import openvino

        precision = "bf16" if dtype == "bfloat16" else "f32"
        values = {"INFERENCE_PRECISION_HINT": precision}
        model = openvino.Core().compile_model(path, "CPU", values)
        return lambda x: model(x)[0]
