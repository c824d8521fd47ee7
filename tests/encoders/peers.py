"""Tiny models of `transformers`, the peers of our encoders."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

VOCABULARY, LENGTH = 60, 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A tiny model with random weights, and the states that we must compute.

    Args:
        name: str, shown by pytest and in the table of the documents.
        side: `"image"` or `"text"`.
        make: function that returns a model of `transformers`; it is saved by
            `save_pretrained` and opened by `convert.unimodal`.
        states: function of the model and the inputs that returns the expected
            states, lowest first: arrays `(batch, tokens, width)`, of grids
            `(batch, height, width, channels)`, after the final norm if there
            is one. `None` for a block whose state the peer does not give.
        image_size: int, side of the pictures.
        length: int, tokens of a text, as our tokenizer packs it.
        parameters: function of the model that returns the number of
            parameters that our tower has at all its states.
        masked: bool, whether the encoder hides padding. If not, states at
            padding are compared too.
        resizes: bool, whether `states` takes pictures of another size.
        summary: str, with which row 0 is the encoder's own, where the default
            replaces it.
    """

    name: str
    side: str
    make: Callable
    states: Callable
    parameters: Callable
    image_size: int = 32
    length: int = LENGTH
    masked: bool = True
    resizes: bool = True
    summary: str | None = None

    def __str__(self):
        return self.name


def randomised(model):
    """Return a model with weights that are larger than the initial ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = p.ndim == 1 and name.endswith("weight")
            p.copy_(float(norm) + torch.randn(p.shape) * 0.1)
    return model.eval()


def inputs_for(peer, seed=0):
    """Return the inputs of a peer as our tower takes them, in NumPy."""
    rng = np.random.default_rng(seed)
    if peer.side == "image":
        side = peer.image_size
        return rng.normal(size=(2, side, side, 3)).astype("float32")
    ids = rng.integers(5, VOCABULARY, (2, peer.length)).astype("int32")
    mask = np.ones_like(ids)
    mask[1, peer.length - 3 :] = 0
    ids = np.where(mask == 1, ids, 1).astype("int32")
    return {
        "token_ids": ids,
        "padding_mask": mask,
        "segment_ids": np.zeros_like(ids),
    }


def pixels(images):
    """Return images as `transformers` takes them."""
    return torch.tensor(images.transpose(0, 3, 1, 2))


def count(*modules, without=()):
    """Return the number of parameters, of shared ones once."""
    found = {
        id(p): p.numel()
        for module in modules
        for name, p in module.named_parameters()
        if not any(part in name for part in without)
    }
    return sum(found.values())


def with_norm(states, norm=None):
    """Return states, after a final norm if there is one, as arrays."""
    with torch.no_grad():
        return [(norm(x) if norm else x).numpy() for x in states]
