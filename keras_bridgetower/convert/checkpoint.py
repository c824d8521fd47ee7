"""An opened checkpoint of another library, and the transfer of its weights."""

import dataclasses
import os
import re

import keras
import numpy as np

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert.bridgetower import UNREAD
from keras_bridgetower.encoders.layouts import POSITIONS
from keras_bridgetower.models import head_table
from keras_bridgetower.models.adapters import merged_weights
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint of another library, before any weight is read.

    Args:
        tensors: `Tensors`, the weights, read on demand.
        architecture: `Architecture` of the backbone.
        heads: dict from the name of a head to its constructor values.
        rules: list of `Rule` for the backbone and the heads.
        unread: list of names of tensors that the model does not use.
        processors: tuple of tokenizer and image converter; either may be None.
    """

    tensors: object
    architecture: object
    heads: dict
    rules: list
    unread: list
    processors: tuple

    def build(self, **kwargs):
        """Build the backbone and the heads, and load their weights.

        Args:
            **kwargs: `allow_nonfinite` and `progress` of `load_weights`.

        Returns:
            `(backbone, heads)`: a `BridgeTowerBackbone` and a `HeadSet`.
        """
        backbone = architecture.build(self.architecture, self.tensors)
        heads = architecture.built(
            lambda: head_table.make_all(self.heads, backbone), self.tensors
        )
        variables = variables_by_path(
            backbone, heads, encoder=backbone.image_encoder
        )
        load_weights(self.rules, self.tensors, variables, **kwargs)
        backbone.extra = _read_extra(self.rules, self.tensors, self.unread)
        return backbone, heads

    def save_to_preset(self, destination, **kwargs):
        """Write the checkpoint as a preset folder.

        Args:
            destination: path of a folder that does not exist yet.
            **kwargs: as in `build`.
        """

        def save(path):
            backbone, heads = self.build(**kwargs)
            backbone.save_to_preset(path)
            for processor in self.processors:
                if processor is not None:
                    processor.save_to_preset(path)
            if self.heads:
                heads.save(os.path.join(path, weights_file.TASK_WEIGHTS))
                registry.write_json(path, registry.HEADS, self.heads)

        registry.write(destination, save, name="destination")


def variables_by_path(*layers, encoder=None):
    """Return a dict of the weights of layers by path.

    Values of variables with LoRA adapters are merged. CLIP's position ids,
    which are constant, are left out.

    Args:
        *layers: backbone, encoder or heads.
        encoder: the image encoder among them. After loading, KerasHub's CLIP
            puts its own name before those of its layers; it is removed.
    """
    prefix = f"{encoder.name}_" if encoder else ""
    return {
        path.removeprefix(prefix): weight
        for layer in layers
        for path, weight in merged_weights(layer)
        if not path.endswith("position_ids")
    }


def unread_keys(rules, tensors, unread=UNREAD):
    """Check that rules and tensors match, and list the unused tensors.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors`.
        unread: tuple of regular expressions of the names of tensors that may
            be unused.

    Raises:
        ConversionError: tensors are missing, or unused and not allowed to be.
    """
    needed = {key for rule in rules for key in rule.keys}
    unused = sorted(set(tensors.shapes) - needed)
    kept = [k for k in unused if any(re.fullmatch(p, k) for p in unread)]
    wrong = [f"{k} is missing" for k in sorted(needed - set(tensors.shapes))]
    wrong += [f"{key} has no place" for key in unused if key not in kept]
    if wrong:
        raise ConversionError(
            "Tensors and variables must match one to one. Check that the "
            "configuration belongs to the weights, or name the tensors to "
            "leave out in `ignore`.",
            tensors.path,
            wrong,
        )
    return kept


def _check_shapes(rules, tensors, variables):
    """Check that tensors have the shapes that their variables need."""
    ruled = [path for rule in rules for path in rule.variables]
    if sorted(ruled) != sorted(variables):
        raise ConversionError(
            "The rules must set every variable of the model exactly once; "
            "this is a bug of the library, please report it.",
            tensors.path,
            sorted(set(ruled) ^ set(variables)),
        )
    wrong = []
    for rule in rules:
        # Zeros that are never written take no memory.
        values = [
            np.zeros(variables[p].shape, "float32") for p in rule.variables
        ]
        for key, like in zip(rule.keys, rule.layout.save(values), strict=True):
            shape = tensors.shapes[key]
            if shape != like.shape:
                wrong.append(f"{key} has shape {shape}, not {like.shape}")
    if wrong:
        raise ConversionError(
            "Tensors must have the shapes of the model. Check that the "
            "configuration belongs to the weights.",
            tensors.path,
            wrong,
        )


def load_weights(
    rules, tensors, variables, allow_nonfinite=False, progress=lambda n: None
):
    """Read tensors one by one and assign them.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors` with every key of the rules.
        variables: dict from path to variable. The rules must set all.
        allow_nonfinite: bool, whether NaN and infinity are allowed.
        progress: callable that gets the number of finished rules.

    Raises:
        ConversionError: shapes differ, or values are not finite.
    """
    _check_shapes(rules, tensors, variables)

    def cast(values, dtype, keys):
        # Numbers that the type cannot hold become infinite.
        with np.errstate(over="ignore"):
            values = values.astype(dtype, copy=False)
        if not (allow_nonfinite or weights_file.is_finite(values)):
            raise ConversionError(
                "A tensor must be finite, also in the dtype of its variable. "
                "Pass `allow_nonfinite=True` to load it unchanged.",
                tensors.path,
                keys,
            )
        return values

    for done, rule in enumerate(rules, 1):
        # Cast before layouts add tensors: in half precision a sum could be
        # rounded or overflow.
        targets = [variables[path] for path in rule.variables]
        shapes = [tuple(variable.shape) for variable in targets]
        # NumPy lacks some types of tensors.
        problem = "A tensor cannot be converted"
        with (
            converting(problem, tensors.path, rule.keys),
            np.errstate(over="ignore"),
        ):
            read = [
                cast(tensors.read(key), "float32", [key]) for key in rule.keys
            ]
            values = rule.layout.load(read, shapes)
        for variable, value in zip(targets, values, strict=True):
            variable.assign(cast(value, variable.dtype, rule.keys))
        progress(done)


def _read_extra(rules, tensors, unread):
    """Read the tensors that the model does not use and export writes again.

    Rows that the model does not hold, such as the two for padding of RoBERTa's
    positions, are named `<tensor>[:2]`. The token type row, which is added to
    the positions, keeps its name.
    """
    extra = {key: np.array(tensors.read(key)) for key in unread}
    for rule in rules:
        rows, key = rule.layout.outside, rule.keys[0]
        if rows:
            extra[f"{key}[:{rows}]"] = np.array(tensors.read(key)[:rows])
        if rule.layout is POSITIONS:
            folded = rule.keys[1]
            extra[folded] = np.array(tensors.read(folded))
    return extra


def to_tensors(rules, variables, extra):
    """Convert variables to float32 tensors with the names of the rules.

    Args:
        rules: list of `Rule`.
        variables: dict from path to variable.
        extra: dict, the `extra` of a backbone.
    """
    tensors, extra = {}, dict(extra)
    for rule in rules:
        values = [
            keras.ops.convert_to_numpy(variables[path]).astype("float32")
            for path in rule.variables
        ]
        saved = rule.layout.save(values)
        rows, key = rule.layout.outside, rule.keys[0]
        if rows:
            saved[0][:rows] = extra.pop(f"{key}[:{rows}]", 0)
        if rule.layout is POSITIONS:
            # Like the other rows, these hold the sum of both tables.
            saved[0][:rows] += extra.pop(rule.keys[1], 0)
        for key, value in zip(rule.keys, saved, strict=True):
            tensors[key] = np.array(value, order="C")
    return {**extra, **tensors}
