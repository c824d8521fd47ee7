"""The variants that the paper's ablations compare: values, models, parameters.

`ablation_variants.json` has them with the paper's numbers (AAAI 2023): VQAv2
test-dev and Flickr30K RSUM without vision-language pre-training. The managers
are those of ManagerTower (ACL 2023).
"""

import json
import pathlib
from typing import NamedTuple

import keras_hub
import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private.variables import shapes_only

CLIP, ROBERTA, BERT = "CLIP-ViT-B/16", "RoBERTa", "BERT"


class Variant(NamedTuple):
    """One row of a table."""

    name: str  # As the paper calls it.
    values: dict  # Constructor values of `BridgeTowerBackbone`.
    image: str = CLIP  # A key of `IMAGE_ENCODERS`.
    text: str = ROBERTA  # A key of `TEXT_ENCODERS`.
    paper: dict = {}  # What the paper has of "parameters", "vqa" and "rsum".


class Size(NamedTuple):
    """Sizes that all variants of a table share."""

    width: int  # Of encoders and cross-modal layers.
    heads: int  # Attention heads, likewise.
    blocks: int  # Of each encoder: the most layers that can be bridged.
    layers: int  # Cross-modal layers where a variant does not say.
    side: int  # Pixels of the usual picture.
    vocabularies: dict  # From a key of `TEXT_ENCODERS` to its tokens.
    positions: int  # Longest text.
    dropout: float  # Of the cross-modal layers.


# The tiny text encoders share one vocabulary.
TINY = Size(64, 4, 6, 3, 64, {ROBERTA: 512, BERT: 512}, 32, 0.0)
BASE = Size(768, 12, 12, 6, 288, {ROBERTA: 50_265, BERT: 30_522}, 512, 0.1)
_CLIP = keras_hub.models.CLIPVisionEncoder, "intermediate_dim"
_VIT = keras_hub.models.ViTBackbone, "mlp_dim"
_DEIT = keras_hub.models.DeiTBackbone, "intermediate_dim"
# Class, its name of the feed-forward width, pixels at base size, patch side.
IMAGE_ENCODERS = {
    "DeiT B-224/16": (*_DEIT, 224, 16),
    "ViT B-224/16": (*_VIT, 224, 16),
    "ViT B-384/16": (*_VIT, 384, 16),
    "CLIP-ViT-B/32": (*_CLIP, 288, 32),
    CLIP: (*_CLIP, 288, 16),
}
TEXT_ENCODERS = {
    ROBERTA: keras_hub.models.RobertaBackbone,
    BERT: keras_hub.models.BertBackbone,
}


class Study(NamedTuple):
    """One table of the paper."""

    counted: str  # What the column of parameters counts: a key of `COUNTS`.
    rows: list

    def variants(self, size):
        """Return the rows: a bridged layer needs a block of each encoder."""
        return [
            row
            for row in self.rows
            if row.values.get("num_layers", 0) <= size.blocks
        ]


_FILE = pathlib.Path(__file__).with_suffix(".json")
STUDIES = {
    name: Study(study["counted"], [Variant(**x) for x in study["variants"]])
    for name, study in json.loads(_FILE.read_text()).items()
}


def build(variant, size):
    shared = {
        "num_layers": size.blocks,
        "num_heads": size.heads,
        "hidden_dim": size.width,
    }
    cls, feedforward, pixels, patch = IMAGE_ENCODERS[variant.image]
    side = round(size.side * pixels / BASE.side / 16) * 16
    image = cls(
        image_shape=(side, side, 3),
        patch_size=patch,
        **{feedforward: 4 * size.width},
        **shared,
    )
    text = TEXT_ENCODERS[variant.text](
        vocabulary_size=size.vocabularies[variant.text],
        intermediate_dim=4 * size.width,
        max_sequence_length=size.positions,
        dropout=size.dropout,
        **shared,
    )
    return kbt.BridgeTowerBackbone(image, text, **_fusion_values(variant, size))


def _fusion_values(variant, size):
    return {
        "hidden_dim": size.width,
        "num_heads": size.heads,
        "num_layers": size.layers,
        "dropout": size.dropout,
    } | variant.values


def _fusion(variant, size, **values):
    fusion = kbt.CrossModalEncoder(**_fusion_values(variant, size) | values)
    tapped = sum(tap is not None for tap in fusion.taps)
    states = [(None, None, size.width)] * tapped
    with shapes_only():
        fusion.build(states, states)
    return fusion


def weights_of(layer):
    """int, trainable weights of a layer or model."""
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


def _bridges(variant, size):
    bare = _fusion(variant, size, bridge=None)
    return weights_of(_fusion(variant, size)) - weights_of(bare)


def _layers(variant, size):
    return sum(map(weights_of, _fusion(variant, size).steps))


def _model(variant, size):
    with shapes_only():
        return weights_of(build(variant, size))


COUNTS = {"bridges": _bridges, "cross-modal layers": _layers, "model": _model}


def count_text(count):
    """Format a count as the paper does: `"18.4K"`, `"113.4M"`."""
    unit, scale = ("K", 1e3) if count < 1e6 else ("M", 1e6)
    return f"{count / scale:.1f}{unit}"
