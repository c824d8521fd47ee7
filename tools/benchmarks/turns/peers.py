"""Models of transformers on PyTorch, on the GPU if there is one."""

import torch
import transformers

from turns.samples import load_weights


class Peer:
    """A model of transformers, by the name of its class."""

    def __init__(self, folder, dtype, name="BridgeTowerModel"):
        cls = getattr(transformers, name)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, dtype)
        model = cls.from_pretrained(folder, dtype=self.dtype)
        self.side = model.config.vision_config.image_size
        self.model = model.eval().to(self.device)

    def integers(self, values):
        """Return a tensor of int64."""
        return torch.tensor(values.astype("int64")).to(self.device)

    def pictures(self, images):
        pixels = torch.tensor(images.transpose(0, 3, 1, 2))
        return pixels.to(self.device, self.dtype)

    def arguments(self, features):
        """Return the arguments of the model for `samples.features`."""
        return {
            "pixel_values": self.pictures(features["images"]),
            "input_ids": self.integers(features["token_ids"]),
            "attention_mask": self.integers(features["padding_mask"]),
        }


class QuestionAnswering(torch.nn.Module):
    """The head of `BridgeTowerVQA` on `BridgeTowerModel` of transformers.

    transformers has no model that answers questions.
    """

    def __init__(self, saved, peer):
        super().__init__()
        self.encoder = peer.model
        weights = load_weights(saved.answers)
        width, answers = weights[4].shape
        self.head = torch.nn.Sequential(
            torch.nn.Linear(len(weights[0]), width),
            torch.nn.LayerNorm(width),
            torch.nn.GELU(),
            torch.nn.Linear(width, answers),
        )
        with torch.no_grad():
            parameters = zip(self.head.parameters(), weights, strict=True)
            for parameter, value in parameters:
                parameter.copy_(torch.tensor(value.T))
        self.head.to(peer.device, peer.dtype)

    def forward(self, **x):
        return self.head(self.encoder(**x).pooler_output)
