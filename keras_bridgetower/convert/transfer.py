"""Moves weights between tensors of a file and a model's variables, by rules."""

import re

import keras
import numpy as np

from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.rules.bridgetower import UNREAD
from keras_bridgetower.convert.rules.layouts import PADDING_ROWS
from keras_bridgetower.convert.rules.layouts import POSITIONS
from keras_bridgetower.convert.tensors import check_finite
from keras_bridgetower.models.adapters import merged_weights


def variables_of(*layers, encoder=None):
    """The weights of layers by path, with LoRA adapters merged in.

    CLIP's position ids, which are constant, are left out.

    Args:
        *layers: backbone, encoder or heads.
        encoder: the image encoder among them. After saving and loading,
            KerasHub's CLIP puts its own name before the names of its layers;
            this prefix is removed.

    Returns:
        dict from path to variable, or to the merged value if the variable
        has an adapter.
    """
    weights = [
        (path, weight)
        for layer in layers
        for path, weight in merged_weights(layer)
        if not path.endswith("position_ids")
    ]
    prefix = f"{encoder.name}_" if encoder else ""
    return {path.removeprefix(prefix): weight for path, weight in weights}


def unread_keys(rules, tensors, unread=UNREAD, ignore=()):
    """Check that rules and tensors match, and list the unused tensors.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors`.
        unread: tuple of `Unread`, the tensors that may be unused.
        ignore: tuple of regular expressions, names of further tensors that
            may be unused.

    Returns:
        list of str, the names of the unused tensors.

    Raises:
        ConversionError: tensors are missing, or unused and not allowed to be.
    """
    wanted = [key for rule in rules for key in rule.keys]
    left = sorted(set(tensors.shapes) - set(wanted))
    patterns = [u.pattern for u in unread] + list(ignore)
    kept = [k for k in left if any(re.fullmatch(p, k) for p in patterns)]
    missing = sorted(set(wanted) - set(tensors.shapes))
    wrong = [f"{key} is missing" for key in missing]
    wrong += [f"{key} has no place" for key in left if key not in kept]
    if wrong:
        raise ConversionError(
            "Every tensor must have its place and every variable its tensor. "
            "Check that the configuration is that of the weights, or name "
            "what may be left in `ignore`.",
            tensors.path,
            wrong,
        )
    return kept


def check_shapes(rules, tensors, variables):
    """Check that tensors have the shapes that their variables need.

    Raises:
        ConversionError: shapes differ, or a variable has no rule.
    """
    ruled = [path for rule in rules for path in rule.variables]
    if sorted(ruled) != sorted(variables):
        odd = sorted(set(ruled) ^ set(variables))
        raise ConversionError(
            "The rules must set every variable of the model exactly once; "
            "this is a fault of the library, please report it.",
            tensors.path,
            odd,
        )
    wrong = []
    for rule in rules:
        # The pages of zeros that nobody writes to take no memory.
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
            "configuration is that of the weights.",
            tensors.path,
            wrong,
        )


def load(
    rules, tensors, variables, allow_nonfinite=False, progress=lambda n: None
):
    """Read tensors one by one and assign them.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors` that hold every key of the rules.
        variables: dict from path to variable. The rules must set all.
        allow_nonfinite: bool, whether NaN and infinity are allowed.
        progress: callable that gets the number of finished rules.

    Raises:
        ConversionError: shapes differ, or values are not finite.
    """
    check_shapes(rules, tensors, variables)
    for done, rule in enumerate(rules, 1):
        read = [tensors.read(key) for key in rule.keys]
        for key, tensor in zip(rule.keys, read, strict=True):
            if tensor.dtype.kind not in "fiu":
                raise ConversionError(
                    f"A weight must be of numbers, not {tensor.dtype}.",
                    tensors.path,
                    [key],
                )
        # Cast before layouts add tensors: in half precision a sum would be
        # rounded, or overflow.
        read = [_cast(tensor, "float32") for tensor in read]
        for key, tensor in zip(rule.keys, read, strict=True):
            if not allow_nonfinite:
                check_finite(tensor, tensors.path, [key])
        targets = [variables[path] for path in rule.variables]
        shapes = [tuple(v.shape) for v in targets]
        try:
            with np.errstate(over="ignore"):
                values = rule.layout.load(read, shapes)
        except ValueError as error:
            raise ConversionError(f"{error}", tensors.path, rule.keys) from None
        for variable, value in zip(targets, values, strict=True):
            value = _cast(value, variable.dtype)
            if not allow_nonfinite:
                check_finite(value, tensors.path, rule.keys)
            variable.assign(value)
        progress(done)


def _cast(values, dtype):
    """Cast; what the type cannot hold becomes infinite, without a warning."""
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def read_extra(rules, tensors, kept):
    """Read the tensors that the model does not use and export writes again.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors`.
        kept: list of str, as `unread_keys` returns it.

    Returns:
        dict from name to array. The two rows for padding in RoBERTa's
        position table are named `<tensor>[:2]`. The token type row, which
        was added to the positions, keeps its name.
    """
    extra = {key: np.array(tensors.read(key)) for key in kept}
    for rule in rules:
        if rule.layout is POSITIONS:
            key, folded = rule.keys
            rows = tensors.read(key)[:PADDING_ROWS]
            extra[f"{key}[:{PADDING_ROWS}]"] = np.array(rows)
            extra[folded] = np.array(tensors.read(folded))
    return extra


def save(rules, variables, extra):
    """Convert variables to tensors, with the names in the rules.

    Args:
        rules: list of `Rule`.
        variables: dict from path to variable.
        extra: dict, as `read_extra` returns it.

    Returns:
        dict from name to float32 array.
    """
    tensors, extra = {}, dict(extra)
    for rule in rules:
        values = [
            keras.ops.convert_to_numpy(variables[path]).astype("float32")
            for path in rule.variables
        ]
        saved = rule.layout.save(values)
        if rule.layout is POSITIONS:
            key, folded = rule.keys
            rows = extra.pop(f"{key}[:{PADDING_ROWS}]", 0)
            # The other rows hold the sum of both tables; so must these.
            saved[0][:PADDING_ROWS] = rows + extra.pop(folded, 0)
        for key, value in zip(rule.keys, saved, strict=True):
            tensors[key] = np.array(value, order="C")
    return {**extra, **tensors}
