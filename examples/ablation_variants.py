"""The variants that the paper's ablations compare: values, models, parameters.

The numbers of `Paper` are those that the authors published for BridgeTower
(AAAI 2023): VQAv2 test-dev and RSUM on Flickr30K, without vision-language
pre-training.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import keras_hub
import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.backend.uninitialized import shapes_only

CLIP, ROBERTA, BERT = "CLIP-ViT-B/16", "RoBERTa", "BERT"


class Paper(NamedTuple):
    """The numbers of the paper for a variant, or None."""

    parameters: str | None = None
    vqa: float | None = None
    rsum: float | None = None


class Variant(NamedTuple):
    """One row of a table."""

    name: str  # As the paper calls it.
    values: dict  # Constructor values of `BridgeTowerBackbone`.
    image: str = CLIP  # A key of `IMAGE_ENCODERS`.
    text: str = ROBERTA  # A key of `TEXT_ENCODERS`.
    paper: Paper = Paper()


@dataclasses.dataclass(frozen=True)
class Size:
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


def _clip(patch):
    def build(size):
        return keras_hub.models.CLIPVisionEncoder(
            patch_size=patch,
            hidden_dim=size.width,
            num_layers=size.blocks,
            num_heads=size.heads,
            intermediate_dim=4 * size.width,
            image_shape=(size.side, size.side, 3),
        )

    return build


def _vit(backbone, feedforward, share):
    """Return a builder of a ViT or DeiT for a share of the usual side."""

    def build(size):
        # At base size 224 and 384 pixels; CLIP's have 288.
        side = round(size.side * share / 16) * 16
        return backbone(
            image_shape=(side, side, 3),
            patch_size=16,
            num_layers=size.blocks,
            num_heads=size.heads,
            hidden_dim=size.width,
            dropout_rate=0.0,
            attention_dropout=0.0,
            **{feedforward: 4 * size.width},
        )

    return build


def _text(name, backbone):
    def build(size):
        return backbone(
            vocabulary_size=size.vocabularies[name],
            num_layers=size.blocks,
            num_heads=size.heads,
            hidden_dim=size.width,
            intermediate_dim=4 * size.width,
            max_sequence_length=size.positions,
            dropout=size.dropout,
        )

    return build


_VIT = keras_hub.models.ViTBackbone, "mlp_dim"
_DEIT = keras_hub.models.DeiTBackbone, "intermediate_dim"
IMAGE_ENCODERS = {
    "DeiT B-224/16": _vit(*_DEIT, 224 / 288),
    "ViT B-224/16": _vit(*_VIT, 224 / 288),
    "ViT B-384/16": _vit(*_VIT, 384 / 288),
    "CLIP-ViT-B/32": _clip(32),
    CLIP: _clip(16),
}
TEXT_ENCODERS = {
    ROBERTA: _text(ROBERTA, keras_hub.models.RobertaBackbone),
    BERT: _text(BERT, keras_hub.models.BertBackbone),
}
METER, BRIDGED = "METER", "BridgeTower"
MODELS = {METER: None, BRIDGED: "add"}


def definition(size):
    """Design I: what a bridge is."""
    return [
        Variant(f"({letter}) {bridge}", {"bridge": bridge}, paper=Paper(*row))
        for letter, bridge, *row in (
            ("a", "add", "18.4K", 75.18, 533.8),
            ("b", "multiply", "18.4K", 73.41, 530.4),
            ("c", "interpolate", "26.0K", 75.09, 532.9),
            ("d", "gate", "11.8M", 75.13, 533.1),
            ("e", "linear", "11.8M", 74.55, 532.2),
            ("f", "mlp", "35.4M", 74.26, 530.2),
            ("g", "cross_attention", "23.6M", 73.67, 514.3),
            ("h", "cross_attention_ffn", "70.8M", 73.54, 511.1),
            ("i", "add_linear", "11.8M", 75.10, 533.1),
        )
    ]


def layers(size):
    """Design II: how many cross-modal layers, bridged and not."""
    rows = (
        (2, "37.8M", (72.84, 526.0), (74.12, 527.1)),
        (3, "56.8M", (73.47, 526.5), (74.36, 528.6)),
        (4, "75.6M", (73.71, 527.9), (75.00, 529.7)),
        (5, "94.6M", (73.80, 528.8), (74.98, 531.8)),
        (6, "113.4M", (74.04, 530.7), (75.18, 533.8)),
        (8, "151.2M", (73.97, 530.0), (75.07, 531.6)),
        (10, "189.0M", (73.45, 529.6), (75.06, 531.7)),
        (12, "226.8M", (71.88, 528.7), (74.94, 531.4)),
    )
    return [
        Variant(
            f"{count} layers, {model}",
            {"num_layers": count, "bridge": bridge},
            paper=Paper(parameters, *scores),
        )
        for count, parameters, *both in rows
        # A bridged layer needs a block of each encoder.
        if count <= size.blocks
        for (model, bridge), scores in zip(MODELS.items(), both, strict=True)
    ]


def bridges(size):
    """Design III: how many of the layers are bridged."""
    reported = {0: (75.18, 533.8), 2: (75.06, 533.1), 3: (74.97, 532.8)}
    reported |= {4: (74.71, 532.3), 6: (74.04, 530.7)}
    made = []
    for external, scores in reported.items():
        internal = 6 - external
        values = {"num_layers": 6, "bridge": None}
        if internal:
            taps = (*range(-internal, 0), *(None,) * external)
            values = {"num_layers": 6, "bridge": "add", "taps": taps}
        name = f"{internal}+{external}" + ("" if internal else ", METER")
        made.append(Variant(name, values, paper=Paper(None, *scores)))
    return made


def encoders(size):
    """Any visual and textual encoder, bridged and not."""
    rows = (
        ("DeiT B-224/16", ROBERTA, (69.98, 448.0), (70.83, 455.7)),
        ("ViT B-224/16", ROBERTA, (70.26, 472.7), (72.24, 476.9)),
        ("ViT B-384/16", ROBERTA, (70.52, 472.8), (72.38, 477.1)),
        ("CLIP-ViT-B/32", ROBERTA, (72.19, 508.8), (72.91, 512.0)),
        (CLIP, BERT, (74.09, 522.1), (74.89, 526.5)),
        (CLIP, ROBERTA, (74.04, 530.7), (75.18, 533.8)),
    )
    return [
        Variant(
            f"{image} + {text}, {model}",
            {"bridge": bridge},
            image,
            text,
            Paper(None, *scores),
        )
        for image, text, *both in rows
        for (model, bridge), scores in zip(MODELS.items(), both, strict=True)
    ]


def cross_encoder(size):
    """Any cross-modal encoder, bridged and not."""
    return [
        Variant(f"{cross}, {model}", {"cross_encoder": cross, "bridge": bridge})
        for cross in ("co_attention", "merged_attention")
        for model, bridge in MODELS.items()
    ]


class Study(NamedTuple):
    """One table of the paper."""

    variants: Callable  # From a `Size` to the rows.
    counted: str  # What the column of parameters counts: a key of `COUNTS`.


STUDIES = {
    "definition": Study(definition, "bridges"),
    "layers": Study(layers, "cross-modal layers"),
    "bridges": Study(bridges, "model"),
    "encoders": Study(encoders, "model"),
    "cross_encoder": Study(cross_encoder, "cross-modal layers"),
}


def build(variant, size):
    """Build the untrained backbone of a variant."""
    return kbt.BridgeTowerBackbone(
        IMAGE_ENCODERS[variant.image](size),
        TEXT_ENCODERS[variant.text](size),
        **_fusion_values(variant, size),
    )


def check(variants, size):
    """Build every variant without weights, so that errors come first."""
    for variant in variants:
        with shapes_only():
            build(variant, size)


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
    """Count the parameters that a definition adds to layers."""
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
