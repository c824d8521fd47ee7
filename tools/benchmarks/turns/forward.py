"""A forward pass of a matching task, for each library."""

import numpy as np

from turns.runtimes import OnnxRuntimeForward
from turns.runtimes import OpenVINOForward
from turns.samples import features


class KerasForward:
    """`BridgeTowerRetrieval` on the backend of this process.

    Args:
        folder: path of a `transformers` folder.
        contender: `Contender`.
    """

    def __init__(self, folder, contender):
        import keras_bridgetower as kbt

        self.task = kbt.BridgeTowerRetrieval.from_preset(
            folder, dtype=contender.dtype
        )
        self.task.compile(jit_compile=contender.compiled)

    def run(self, batch, tokens):
        side = self.task.input["images"].shape[1]
        x = features(batch, side, tokens)
        return lambda: np.asarray(self.task.predict_on_batch(x), "float32")


class TransformersForward:
    """`BridgeTowerForImageAndTextRetrieval` of transformers.

    Args:
        folder: path of its folder.
        contender: `Contender`.
    """

    def __init__(self, folder, contender):
        import torch
        import transformers

        self.torch = torch
        self.dtype = getattr(torch, contender.dtype)
        cls = transformers.BridgeTowerForImageAndTextRetrieval
        model = cls.from_pretrained(folder, dtype=self.dtype).eval()
        self.side = model.config.vision_config.image_size
        self.model = torch.compile(model) if contender.compiled else model

    def run(self, batch, tokens):
        torch = self.torch
        made = features(batch, self.side, tokens)
        pixels = torch.tensor(made["images"].transpose(0, 3, 1, 2))
        x = {
            "pixel_values": pixels.to(self.dtype),
            "input_ids": torch.tensor(made["token_ids"].astype("int64")),
            "attention_mask": torch.tensor(
                made["padding_mask"].astype("int64")
            ),
        }

        def forward():
            with torch.inference_mode():
                return self.model(**x).logits.float().numpy()

        return forward


LIBRARIES = {
    "keras_bridgetower": KerasForward,
    "transformers": TransformersForward,
    "onnxruntime": OnnxRuntimeForward,
    "openvino": OpenVINOForward,
}
