"""transformers' BridgeTower as the peer, and our backbone of its weights."""

import tempfile

import numpy as np
import torch
import transformers

import keras_bridgetower as kbt

SMALL = dict(hidden=64, layers=4, fused=3, heads=4, vocabulary=100, side=64)
PUBLISHED = dict(fused=6, vocabulary=50_265)
BASE = PUBLISHED | dict(hidden=768, layers=12, heads=12, side=288)
LARGE = PUBLISHED | dict(hidden=1024, layers=24, heads=16, side=294, patch=14)


def peer(size, link="add", shared_projections=True):
    """A random transformers model for image-text matching, in inference."""
    torch.manual_seed(0)
    config = transformers.BridgeTowerConfig(
        hidden_size=size["hidden"],
        num_hidden_layers=size["fused"],
        num_attention_heads=size["heads"],
        intermediate_size=4 * size["hidden"],
        link_tower_type=link,
        share_cross_modal_transformer_layers=shared_projections,
        text_config=dict(
            vocab_size=size["vocabulary"],
            hidden_size=size["hidden"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"],
            intermediate_size=4 * size["hidden"],
            max_position_embeddings=66,
        ),
        vision_config=dict(
            hidden_size=size["hidden"],
            num_hidden_layers=size["layers"],
            image_size=size["side"],
            patch_size=size.get("patch", 16),
        ),
    )
    cls = transformers.BridgeTowerForImageAndTextRetrieval
    return randomise(cls(config).eval())


def randomise(model):
    """Give a model of transformers random weights, the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            # Norms near one, the rest large enough to make a difference.
            noise = torch.randn(p.shape, generator=generator)
            norm = p.ndim == 1 and name.endswith("weight")
            p.copy_(float(norm) + noise * (0.1 if p.ndim < 2 else 0.05))
    return model


def inputs(size, batch=2, tokens=12):
    """The same features for both: (ours, the peer's)."""
    rng = np.random.default_rng(3)
    side, vocabulary = size["side"], size["vocabulary"]
    mask = np.ones((batch, tokens), "int32")
    mask[batch - 1, tokens // 2 :] = 0
    ids = rng.integers(4, vocabulary, (batch, tokens))
    ids = np.where(mask == 1, ids, 1).astype("int32")
    images = rng.normal(size=(batch, side, side, 3)).astype("float32")
    mine = {"images": images, "token_ids": ids, "padding_mask": mask}
    theirs = {
        "pixel_values": torch.tensor(images.transpose(0, 3, 1, 2)),
        "input_ids": torch.tensor(ids.astype("int64")),
        "attention_mask": torch.tensor(mask.astype("int64")),
    }
    return mine, theirs


def pair(size, **kwargs):
    """The peer, and our backbone from its files."""
    model = peer(size, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return model, kbt.BridgeTowerBackbone.from_preset(folder)
