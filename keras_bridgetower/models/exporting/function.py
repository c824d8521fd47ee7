"""What is exported: a function from named features to named outputs."""

from typing import NamedTuple

import keras

from keras_bridgetower.models.checks import TOKEN_FEATURES

# Axes of a feature whose sizes stay free in an exported file.
BATCH, TOKENS, MASKS = "batch", "tokens", "masks"
# The name of an output that has none, of a task with one head.
OUTPUT = "output"


class Feature(NamedTuple):
    """One feature that an exported function takes.

    Args:
        shape: tuple of ints and, for axes of any size, of their names.
        dtype: str.
    """

    shape: tuple
    dtype: str

    @property
    def sizes(self):
        """The shape, with None for axes of any size, as Keras writes it."""
        return tuple(None if type(n) is str else n for n in self.shape)

    def fixed(self, sizes):
        """The same feature, with the sizes that a user fixed."""
        shape = zip(self.shape, sizes, strict=True)
        return Feature(tuple(n or axis for axis, n in shape), self.dtype)


class Function(keras.Model):
    """A function of the layers of a model, as it is exported.

    Args:
        model: the backbone or task whose layers it uses.
        run: callable from a dict of tensors to a tensor or a dict.
        features: dict from names to `Feature`.
        limits: dict from the names of axes to their largest sizes.

    Call arguments:
        inputs: dict of tensors, one for each feature.

    Returns:
        What `run` returns. A dict of dicts becomes one dict, with names such
        as `"itc.text"`.
    """

    def __init__(self, model, run, features, limits):
        super().__init__(dtype=model.dtype_policy, name="exported")
        self.model, self.run = model, run
        # In the order of their names: exports number the inputs in it.
        self.features = dict(sorted(features.items()))
        self.limits = dict(limits)
        self.built = True

    def call(self, inputs, training=None):
        return _flat(self.run(inputs))

    def compute_output_spec(self, inputs, training=None):
        # Keras' own tries a text of 83 tokens, which may be too long.
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype), self.call(inputs)
        )

    def values(self, inputs):
        """The outputs as a tuple, in the order of `output_names`."""
        outputs = self.call(inputs)
        if not isinstance(outputs, dict):
            return (outputs,)
        return tuple(outputs[name] for name in sorted(outputs))

    def functional(self):
        """A functional model that computes it, for Keras' own exports."""
        inputs = {
            name: keras.Input(feature.sizes[1:], dtype=feature.dtype, name=name)
            for name, feature in self.features.items()
        }
        return keras.Model(inputs, self(inputs))

    def output_names(self):
        """Names of the outputs, sorted."""
        outputs = self.functional().output
        return sorted(outputs) if isinstance(outputs, dict) else [OUTPUT]

    def with_sizes(self, signature):
        """The same function, with sizes that a user fixed.

        Args:
            signature: list of one dict of `keras.InputSpec`, or None.
        """
        if signature is None:
            return self
        (specs,) = signature
        features = {
            name: feature.fixed(specs[name].shape)
            for name, feature in self.features.items()
        }
        return Function(self.model, self.run, features, self.limits)


def whole(model):
    """The forward pass of a backbone or task, as an exported function.

    Args:
        model: `BridgeTowerBackbone` or `BridgeTowerTask`.
    """
    features = {
        name: Feature((BATCH, *_axes(name, x.shape[1:])), x.dtype)
        for name, x in model.input.items()
    }
    return Function(model, model.call, features, limits_of(model))


def limits_of(model):
    """The largest sizes of the free axes of a model."""
    encoder = getattr(model, "backbone", model).text_encoder
    return {TOKENS: encoder.max_sequence_length}


def _axes(name, sizes):
    free = TOKENS if name in TOKEN_FEATURES else MASKS
    return [free if size is None else size for size in sizes]


def _flat(outputs):
    """A dict of dicts as one dict; anything else as it is."""
    if not isinstance(outputs, dict):
        return outputs
    flat = {}
    for name, value in outputs.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": x for key, x in value.items()}
        else:
            flat[name] = value
    return flat
