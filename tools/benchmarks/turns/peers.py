"""The works of transformers on PyTorch, on the GPU if there is one: see `ours`.

Training is a plain loop.
"""

import pathlib

import numpy as np
import torch
import transformers
from PIL import Image

from turns import samples

MATCHING = "BridgeTowerForImageAndTextRetrieval"


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
        weights = samples.load_weights(saved.answers)
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


def opener(folder):
    """Return functions that open a model and return its weight file."""

    def open_model():
        peer = Peer(folder, "float32")

        @torch.inference_mode()
        def run(features):
            peer.model(**peer.arguments(features))[0].cpu()

        return run, peer.side

    return open_model, lambda: pathlib.Path(folder, "model.safetensors")


def forward(saved, contender):
    peer = Peer(saved.path("checkpoint"), contender.dtype, MATCHING)
    model = torch.compile(peer.model) if contender.compiled else peer.model

    def prepare(batch, tokens):
        x = peer.arguments(samples.features(batch, peer.side, tokens))

        @torch.inference_mode()
        def turn():
            return model(**x).logits.float().cpu().numpy()

        return turn

    return prepare


def ranking(saved, contender):
    peer = Peer(saved.path("checkpoint"), contender.dtype, MATCHING)

    def prepare(batch, tokens):
        images, text = samples.pictures_and_text(batch, peer.side, tokens)
        texts = {name: np.repeat(x, batch, 0) for name, x in text.items()}
        x = peer.arguments({"images": images, **texts})

        @torch.inference_mode()
        def turn():
            return peer.model(**x).logits[:, 1:].float().cpu().numpy()

        return turn

    return prepare


def answer(saved, contender):
    folder = saved.path("checkpoint")
    peer = Peer(folder, contender.dtype)
    model = QuestionAnswering(saved, peer).eval()
    processor = transformers.BridgeTowerProcessor.from_pretrained(folder)

    def prepare(batch, tokens):
        @torch.inference_mode()
        def turn():
            images = [
                Image.open(saved.picture).convert("RGB") for _ in range(batch)
            ]
            x = processor(images, [samples.TEXT] * batch, return_tensors="pt")
            x = x.to(peer.device, peer.dtype)
            best = model(**x).float().sigmoid().topk(samples.BEST)
            # As a user gets them.
            rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            return samples.scores(
                [(samples.ANSWERS[i], x) for x, i in zip(*row, strict=True)]
                for row in rows
            )

        return turn

    return prepare


def pretraining(saved, contender):
    """Train two models that share an encoder."""
    names = MATCHING, "BridgeTowerForMaskedLM"
    peer, filler = (
        Peer(saved.path("checkpoint"), contender.dtype, name) for name in names
    )
    matching, filling = peer.model.train(), filler.model.train()
    filling.bridgetower = matching.bridgetower
    weights = {id(p): p for m in (matching, filling) for p in m.parameters()}
    optimizer = torch.optim.AdamW(weights.values(), samples.RATE)

    def prepare(batch, tokens):
        images, ids, masked, positions, match = samples.pretraining_rows(
            batch, peer.side, tokens
        )
        pixels, truth = peer.pictures(images), peer.integers(match)
        other = torch.where(
            truth.bool()[:, None, None, None], pixels, pixels.roll(-1, 0)
        )
        labels = np.full(ids.shape, -100, "int64")
        targets = np.take_along_axis(ids, positions, 1)
        np.put_along_axis(labels, positions, targets, 1)
        texts, blanks, labels, mask = map(
            peer.integers, (ids, masked, labels, np.ones_like(ids))
        )
        blanks = {"input_ids": blanks, "pixel_values": pixels, "labels": labels}
        texts = {"input_ids": texts, "pixel_values": other, "labels": truth}

        def loss():
            filled = filling(**blanks, attention_mask=mask)
            return filled.loss + matching(**texts, attention_mask=mask).loss

        return _step(optimizer, loss)

    return prepare


def vqa(saved, contender):
    peer = Peer(saved.path("checkpoint"), contender.dtype)
    model = QuestionAnswering(saved, peer).train()
    optimizer = torch.optim.AdamW(model.parameters(), samples.RATE)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def prepare(batch, tokens):
        x = peer.arguments(samples.features(batch, peer.side, tokens))
        targets = torch.tensor(samples.soft_scores(batch)).to(peer.device)

        def loss():
            logits = model(**x).float()
            return entropy(logits, targets, reduction="sum") / batch

        return _step(optimizer, loss)

    return prepare


def _step(optimizer, loss):
    def turn():
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        return np.array([[float(found)]])

    return turn
