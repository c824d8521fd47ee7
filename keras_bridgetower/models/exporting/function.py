"""The exported function: named features in, named outputs out.

It computes a whole model, or one of three parts that can be exported alone. A
program that ranks or searches runs each tower once per picture and text,
stores the outputs, and runs only the fusion for pairs.
"""

from typing import NamedTuple

import keras
from keras import ops

from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.checks import TOKEN_FEATURES
from keras_bridgetower.models.heads import contrastive_features

# Axes of a feature whose sizes stay free in an exported file.
BATCH, TOKENS, MASKS = "batch", "tokens", "masks"
# Name of the output of a task with one head, which has none.
OUTPUT = "output"
# Heads that read the pooled representation of one picture and one text.
POOLED_HEADS = ("vqa", "entailment", "itm", "rank")


class Feature(NamedTuple):
    """One input of an exported function.

    Args:
        shape: tuple of ints and, for axes of any size, of their names.
        dtype: str.
    """

    shape: tuple
    dtype: str

    @property
    def sizes(self):
        """The shape as Keras writes it, with None for free axes."""
        return tuple(None if type(n) is str else n for n in self.shape)


class Function(keras.Model):
    """A function of the layers of a model, as it is exported.

    Args:
        model: the backbone or task whose layers it uses.
        run: callable from a dict of tensors to a tensor or a dict.
        features: dict from names to `Feature`.

    Call arguments:
        inputs: dict of tensors, one for each feature.

    Returns:
        The result of `run`. A dict of dicts becomes one dict, with names such
        as `"itc.text"`.
    """

    def __init__(self, model, run, features):
        super().__init__(dtype=model.dtype_policy, name="exported")
        self.model, self.run = model, run
        # Sorted by name: exports number the inputs in this order.
        self.features = dict(sorted(features.items()))
        # The largest sizes of free axes.
        encoder = getattr(model, "backbone", model).text_encoder
        self.limits = {TOKENS: encoder.max_sequence_length}
        self.built = True

    def call(self, inputs, training=None):
        return _flat(self.run(inputs))

    def compute_output_spec(self, inputs, training=None):
        # Keras' own tries a text of 83 tokens, which may be too long.
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype), self.call(inputs)
        )

    def values(self, inputs):
        """Return the outputs as a tuple, in the order of `output_names`."""
        outputs = self.call(inputs)
        if not isinstance(outputs, dict):
            return (outputs,)
        return tuple(outputs[name] for name in sorted(outputs))

    def functional(self):
        """Return it as a functional model, for Keras' own exports."""
        inputs = {
            name: keras.Input(feature.sizes[1:], dtype=feature.dtype, name=name)
            for name, feature in self.features.items()
        }
        return keras.Model(inputs, self(inputs))

    def output_names(self):
        """Return the sorted names of the outputs."""
        outputs = self.functional().output
        return sorted(outputs) if isinstance(outputs, dict) else [OUTPUT]

    def with_sizes(self, signature):
        """Return the same function, with sizes that a user fixed.

        Args:
            signature: list of one dict of `keras.InputSpec`, or None.
        """
        if signature is None:
            return self
        (specs,) = signature
        features = {}
        for name, feature in self.features.items():
            shape = zip(feature.shape, specs[name].shape, strict=True)
            shape = tuple(size or axis for axis, size in shape)
            features[name] = Feature(shape, feature.dtype)
        return Function(self.model, self.run, features)


def _flat(outputs):
    """Return a dict of dicts as one dict; anything else unchanged."""
    if not isinstance(outputs, dict):
        return outputs
    flat = {}
    for name, value in outputs.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": x for key, x in value.items()}
        else:
            flat[name] = value
    return flat


def make_function(model, part=None):
    """Make the exported function of a model or of a part of it.

    Args:
        model: `BridgeTowerBackbone` or `BridgeTowerTask`.
        part: None for the whole model, or a key of `PARTS`.

    Raises:
        ValueError: an unknown part, or a model that does not consist of them.
    """
    if part is None:
        return Function(model, model.call, _input_features(model))
    check_choice("part", part, tuple(PARTS))
    backbone = getattr(model, "backbone", model)
    inputs = model.input
    if any(
        name not in inputs or len(inputs[name].shape) != len(x.shape)
        for name, x in backbone.input.items()
    ):
        raise ValueError(
            "`part` must be None for a task of one tower or of two pictures: "
            "export `task.backbone` with this part. "
            f"Received: part={part!r} of {type(model).__name__}"
        )
    features, run = PARTS[part](model, backbone)
    return Function(model, run, features)


def _input_features(model):
    features = {}
    for name, x in model.input.items():
        free = TOKENS if name in TOKEN_FEATURES else MASKS
        sizes = (free if size is None else size for size in x.shape[1:])
        features[name] = Feature((BATCH, *sizes), x.dtype)
    return features


def _tower(side):
    """Return the part with the tower of a side: `"image"` or `"text"`.

    It returns states for the fusion, and the embedding of a contrastive head.
    """

    def part(model, backbone):
        fusion, heads = backbone.fusion, getattr(model, "heads", {})
        tower = getattr(backbone, f"{side}_tower")
        project = getattr(fusion, f"project_{side}")

        def run(inputs):
            states = tower(inputs["images"] if side == "image" else inputs)
            projected = ops.stack(project(states), axis=1)
            outputs = {"states": ops.cast(projected, "float32")}
            if "itc" in heads:
                ways = heads["itc"].ways
                vectors = contrastive_features(fusion, ways, **{side: states})
                outputs["embedding"] = heads["itc"](vectors)[side]
            return outputs

        features = _input_features(backbone)
        names = ["images"] if side == "image" else tower.input
        return {name: features[name] for name in names}, run

    return part


def _fusion(model, backbone):
    fusion = backbone.fusion
    heads = getattr(model, "heads", {})
    wanted = ("pooled",) if heads else ("text", "image", "pooled")
    if "mlm" in heads:
        wanted = ("text", "pooled")
    taps = sum(tap is not None for tap in fusion.taps)
    patches = backbone.image_tower.outputs[-1].shape[1]

    def states(x):
        return ops.unstack(ops.cast(x, fusion.compute_dtype), taps, axis=1)

    def run(inputs):
        outputs = fusion.join(
            states(inputs["text_states"]),
            states(inputs["image_states"]),
            inputs["padding_mask"],
            wanted,
        )
        pooled = outputs["pooled"]
        for name in POOLED_HEADS:
            if name in heads:
                outputs[f"{name}_logits"] = heads[name](pooled)
        if "itc" in heads and heads["itc"].ways == "three_way":
            outputs["embedding"] = heads["itc"]({"fused": pooled})["fused"]
        return {k: ops.cast(x, "float32") for k, x in outputs.items()}

    width = fusion.hidden_dim
    return {
        "text_states": Feature((BATCH, taps, TOKENS, width), "float32"),
        "image_states": Feature((BATCH, taps, patches, width), "float32"),
        "padding_mask": Feature((BATCH, TOKENS), "int32"),
    }, run


PARTS = {
    "image_tower": _tower("image"),
    "text_tower": _tower("text"),
    "fusion": _fusion,
}
