"""A forward pass of a matching task, for each library."""

import runpy
from importlib.util import find_spec

import numpy as np

from turns.samples import features
from turns.timed import OfTransformers
from turns.timed import Timed


class KerasForward(Timed):
    """`BridgeTowerRetrieval` on the backend of this process."""

    def __init__(self, saved, contender):
        import keras_bridgetower as kbt

        self.task = kbt.BridgeTowerRetrieval.from_preset(
            str(saved.path("checkpoint")),
            preprocessor=None,
            dtype=contender.dtype,
        )
        self.task.compile(jit_compile=contender.compiled)

    def run(self, batch, tokens):
        side = self.task.input["images"].shape[1]
        x = features(batch, side, tokens)
        return lambda: np.asarray(self.task.predict_on_batch(x), "float32")


class TransformersForward(OfTransformers):
    """`BridgeTowerForImageAndTextRetrieval` of transformers."""

    def __init__(self, saved, contender):
        import transformers

        super().__init__(saved, contender)
        model = self.opened(transformers.BridgeTowerForImageAndTextRetrieval)
        compiled = contender.compiled is True
        self.model = self.torch.compile(model) if compiled else model

    def run(self, batch, tokens):
        x = self.features(features(batch, self.side, tokens))

        def forward():
            with self.torch.inference_mode():
                return self.model(**x).logits.float().cpu().numpy()

        return forward


class ExportedForward(Timed):
    """Abstract: a file that this package exported, in another runtime."""

    def __init__(self, saved, contender):
        self.side = saved.pixels()
        path = saved.path(contender.file) / "model.onnx"
        self.model = self.opened(path, contender.dtype)

    def opened(self, path, dtype):
        """A callable from a dict of arrays to a dict with the logits."""
        raise NotImplementedError

    def run(self, batch, tokens):
        x = features(batch, self.side, tokens)
        return lambda: np.asarray(next(iter(self.model(x).values())), "float32")


class OnnxRuntimeForward(ExportedForward):
    """By ONNX Runtime, as it is installed."""

    def opened(self, path, dtype):
        return runner()["load"](path)


class OpenVINOForward(ExportedForward):
    """By OpenVINO, on the processor."""

    def opened(self, path, dtype):
        precision = "bf16" if dtype == "bfloat16" else "f32"
        return runner()["by_openvino"](path, precision=precision)


def runner():
    """Return the names of an exported `run.py`, without importing Keras."""
    (folder,) = find_spec("keras_bridgetower").submodule_search_locations
    return runpy.run_path(f"{folder}/models/exporting/runtime.py")


LIBRARIES = {
    "keras_bridgetower": KerasForward,
    "transformers": TransformersForward,
    "onnxruntime": OnnxRuntimeForward,
    "openvino": OpenVINOForward,
}
