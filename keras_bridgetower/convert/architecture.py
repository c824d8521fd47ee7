"""Derives a model's architecture from the tensor shapes of a checkpoint.

Sizes come from the stored tensors, not from a configuration. So no file can ask
for more memory than its weights take.
"""

import dataclasses
import math
import pathlib
import re
from typing import NamedTuple

import keras_hub
from keras_hub.models import RobertaBackbone

from keras_bridgetower.backend.keras_private import variables
from keras_bridgetower.convert import bridgetower
from keras_bridgetower.encoders.clip import heads_for_width
from keras_bridgetower.encoders.layouts import PADDING_ROWS
from keras_bridgetower.encoders.registry import patch_size
from keras_bridgetower.encoders.roberta import PaddedRobertaBackbone
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.towers import resolve_taps
from keras_bridgetower.presets.configs import MOST_LAYERS
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting

# A model may have this many times the stored weights: some are copied or added,
# such as a second row of types.
MORE_WEIGHTS = 2
# Tensors whose shapes give sizes, and the name of the size of each axis.
SIZES = {
    "{text}embeddings.word_embeddings.weight": "vocabulary_size text_width",
    "{text}embeddings.position_embeddings.weight": "places _",
    "{text}embeddings.token_type_embeddings.weight": "segments _",
    "{image}{patches}": "image_width colors patch_size patch_width",
    "{image}{grid}": "grid _",
    "cross_modal_text_transform.{first}weight": "hidden_dim _",
    "{text}encoder.layer.0.intermediate.dense.weight": "text_intermediate _",
    "{image}transformer.resblocks.0.mlp.c_fc.weight": "image_intermediate _",
    "cross_modal_text_layers.0.intermediate.dense.weight": "intermediate_dim _",
    "token_type_embeddings.weight": "type_rows _",
}
# The start of tensor names; the number of the layer follows it.
LAYERS = {
    "num_layers": "cross_modal_text_layers.",
    "text_layers": "{text}encoder.layer.",
    "image_layers": "{image}transformer.resblocks.",
}


# Fields of an `Architecture`, and the arguments of KerasHub's encoders and of
# the backbone that take them.
TEXT = {
    "vocabulary_size": "vocabulary_size",
    "positions": "max_sequence_length",
    "text_width": "hidden_dim",
    "text_layers": "num_layers",
    "text_heads": "num_heads",
    "text_intermediate": "intermediate_dim",
    "text_dropout": "dropout",
}
IMAGE = {
    "image_width": "hidden_dim",
    "image_layers": "num_layers",
    "image_intermediate": "intermediate_dim",
}
FUSION = {
    name: name
    for name in (
        *("hidden_dim", "num_heads", "num_layers", "intermediate_dim"),
        *("bridge", "projections", "dropout", "attention_dropout"),
        *("layer_norm_epsilon", "bridge_epsilon"),
    )
}


class Names(NamedTuple):
    """Names of the encoders' tensors in a kind of checkpoint.

    Args:
        text, image: str, prefixes of the names in each encoder.
        embeddings: tuple of str, the image encoder's class token, patch
            kernel and positions, without the prefix.
    """

    text: str
    image: str
    embeddings: tuple


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The values that build a backbone and name its tensors.

    `measure` reads the fields without a default from tensor shapes. The
    fields with a default come from the configuration.
    """

    text_encoder: str
    vocabulary_size: int
    positions: int
    text_width: int
    text_layers: int
    text_intermediate: int
    image_width: int
    image_layers: int
    image_intermediate: int
    patch_size: int
    image_size: int
    hidden_dim: int
    num_layers: int
    intermediate_dim: int
    type_rows: int
    bridge: str | None
    projections: str
    # States that each manager reads; 0 without managers.
    managed: int = 0
    image_norms: str = "shared"
    text_heads: int = 12
    num_heads: int = 12
    text_dropout: float = 0.1
    dropout: float = 0.1
    attention_dropout: float | None = None
    layer_norm_epsilon: float = 1e-5
    bridge_epsilon: float = 1e-5

    @property
    def taps(self):
        """tuple, the taps of the backbone."""
        taps = range(-self.managed, 0) if self.managed else None
        return resolve_taps(taps, self.num_layers, self.bridge)

    @property
    def image_heads(self):
        """int, attention heads of the image encoder."""
        return heads_for_width(self.image_width)


def sizes(tensors, table, layers):
    """Read sizes from the shapes of tensors.

    Args:
        tensors: `Tensors`.
        table: dict from names of tensors to the names of the sizes of their
            axes, separated by spaces.
        layers: dict from names of sizes to the start of names of tensors; the
            number of the layer follows it.

    Returns:
        dict from names of sizes to int.

    Raises:
        ConversionError: a tensor is missing or has another number of axes, or
            there are more than `MOST_LAYERS` layers of a kind.
    """
    found = {name: _count_layers(tensors, layers[name]) for name in layers}
    for key, axes in table.items():
        axes, shape = axes.split(), tensors.shapes.get(key)
        if shape is None or len(shape) != len(axes):
            raise ConversionError(
                f"The checkpoint must hold {key!r} with {len(axes)} axes. Is "
                "it a checkpoint of another model?",
                tensors.path,
                [f"shape {shape}"],
            )
        found |= zip(axes, shape, strict=True)
    return found


def measure(tensors, names):
    """Derive an `Architecture` from the shapes of a checkpoint.

    Values that shapes do not give have defaults.

    Args:
        tensors: `Tensors`.
        names: `Names` of the source.
    """
    per_layer = "cross_modal_text_transform.0.weight" in tensors.shapes
    places = {
        "text": names.text,
        "image": names.image,
        "patches": names.embeddings[1],
        "grid": names.embeddings[2],
        "first": "0." if per_layer else "",
    }
    found = sizes(
        tensors,
        {key.format(**places): axes for key, axes in SIZES.items()},
        {field: key.format(**places) for field, key in LAYERS.items()},
    )
    roberta = found["segments"] == 1
    side = math.isqrt(max(found["grid"] - 1, 0))
    if bridgetower.SCORES in tensors.shapes:
        found |= sizes(tensors, {bridgetower.SCORES: "_ managed _ _"}, {})
        most = min(found["text_layers"], found["image_layers"])
        if not 0 < found["managed"] <= most:
            raise ConversionError(
                f"Managers must read 1 to {most} of the highest states of each "
                "encoder.",
                tensors.path,
                [f"{bridgetower.SCORES} has {found['managed']}"],
            )
    fields = {field.name for field in dataclasses.fields(Architecture)}
    return Architecture(
        **{name: size for name, size in found.items() if name in fields},
        text_encoder="roberta" if roberta else "bert",
        positions=found["places"] - (PADDING_ROWS if roberta else 0),
        image_size=side * found["patch_size"],
        bridge=_bridge(tensors.shapes),
        projections="per_layer" if per_layer else "shared",
    )


def _count_layers(tensors, start):
    """Count the layers whose tensors' names begin with `start`."""
    pattern = re.escape(start) + r"(\d+)\."
    matches = (re.match(pattern, key) for key in tensors.shapes)
    found = {match[1] for match in matches if match}
    # Layers are built before their tensors are compared.
    if len(found) > MOST_LAYERS:
        raise ConversionError(
            f"A checkpoint must have at most {MOST_LAYERS} layers of a kind.",
            tensors.path,
            [f"{len(found)} of {start}"],
        )
    return len(found)


def heads(shapes, epsilon, ways):
    """Return a dict from the heads of pre-training to their constructor values.

    Args:
        shapes: dict from names of tensors to shapes.
        epsilon: float, of the masked language head.
        ways: str, of the contrastive head.
    """
    found = {}
    if "itm_score.fc.weight" in shapes:
        found["itm"] = {}
    # transformers, whose contrastive head has three ways, does not have it.
    if "rank_output.weight" in shapes and ways == "two_way":
        found["rank"] = {}
    if "mlm_score.bias" in shapes:
        found["mlm"] = {"epsilon": epsilon}
    for key in ("itc_text_head", "cross_modal_itc_text_head"):
        width, *_ = shapes.get(f"{key}.fc.weight") or [0]
        if width:
            found["itc"] = {"projection_dim": width, "ways": ways}
    return found


def _bridge(shapes):
    """Return the value of `bridge` for a checkpoint with these tensors."""
    if bridgetower.SCORES in shapes:
        adaptive = "cross_modal_text_manager_tower.1.manager_layer.linear_"
        found = any(key.startswith(adaptive) for key in shapes)
        return "adaptive_manager" if found else "static_manager"
    key = "cross_modal_text_link_tower.0."
    for scalar, bridge in (
        ("scaled_factor", "scaled_add"),
        ("beta", "interpolate_scalar"),
        ("LayerNorm.weight", "add"),
    ):
        if f"{key}{scalar}" in shapes:
            return bridge
    return "add" if "cross_modal_text_layernorm.weight" in shapes else None


def build(architecture, tensors):
    """Build a backbone with uninitialized weights.

    Args:
        architecture: an `Architecture`.
        tensors: the `Tensors` that will be loaded.
    """
    a = architecture

    def values(fields):
        return {name: getattr(a, field) for field, name in fields.items()}

    def make():
        # Managers also read padding, which in RoBERTa has its own position.
        roberta = PaddedRobertaBackbone if a.managed else RobertaBackbone
        text = {"roberta": roberta, "bert": keras_hub.models.BertBackbone}
        text = text[a.text_encoder](**values(TEXT))
        image = keras_hub.models.CLIPVisionEncoder(
            patch_size=a.patch_size,
            num_heads=a.image_heads,
            image_shape=(a.image_size, a.image_size, 3),
            **values(IMAGE),
        )
        return BridgeTowerBackbone(
            *(image, text),
            image_norms=a.image_norms,
            taps=a.taps,
            **values(FUSION),
        )

    return built(make, tensors)


def built(make, tensors):
    """Call `make` to build a model with uninitialized weights.

    Raises:
        ConversionError: sizes do not fit together, or the model has far more
            weights than the tensors; no memory was allocated for them.
    """
    stored = sum(map(math.prod, tensors.shapes.values()))
    room = MORE_WEIGHTS * stored, pathlib.Path(tensors.path).name
    problem = (
        "The sizes of a configuration must fit together, and the numbers of "
        "heads divide the widths; pass `text_heads` if a checkpoint does not "
        "name it"
    )
    with converting(problem, tensors.path):
        return variables.without_initialization(make, room=room)


def from_backbone(backbone):
    """Return the `Architecture` of a backbone of RoBERTa and CLIP."""
    fusion = backbone.fusion
    text, image = backbone.text_encoder, backbone.image_encoder
    values = {
        field: getattr(part, name)
        for part, fields in ((text, TEXT), (image, IMAGE), (fusion, FUSION))
        for field, name in fields.items()
    }
    return Architecture(
        text_encoder="roberta",
        patch_size=patch_size(image),
        image_size=backbone.image_size,
        type_rows=2,
        image_norms=backbone.image_norms,
        **values,
    )
