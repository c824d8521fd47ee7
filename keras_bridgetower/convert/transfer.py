"""Moving weights by the rules, every tensor and every variable once."""

import re

import keras
import numpy as np

from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.rules.bridgetower import UNREAD
from keras_bridgetower.convert.rules.layouts import PADDING_ROWS
from keras_bridgetower.convert.rules.layouts import POSITIONS
from keras_bridgetower.convert.tensors import check_finite
from keras_bridgetower.models.merged_weights import merged_weights


def variables_of(*layers, encoder=None):
    """Weights by path, adapters merged in, without CLIP's constant ids.

    Args:
        *layers: backbone, encoder and heads.
        encoder: the image encoder among them; once saved and loaded, a CLIP
            of KerasHub puts its name before those of its layers.

    Returns:
        dict from path to variable; to its value where it has an adapter.
    """
    weights = [
        (path, weight)
        for layer in layers
        for path, weight in merged_weights(layer)
        if not path.endswith("position_ids")
    ]
    # What a saved CLIP puts first.
    prefix = f"{encoder.name}_" if encoder else ""
    return {path.removeprefix(prefix): weight for path, weight in weights}


def unread_keys(rules, tensors, unread=UNREAD, ignore=()):
    """Check that every tensor has a place, and name those without a reader.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors`.
        unread: tuple of `Unread`.
        ignore: tuple of patterns of further names to leave.

    Returns:
        list of str: names that the architecture never reads.

    Raises:
        ConversionError: tensors are missing or left.
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
    """Refuse tensors of another shape than their variables ask for.

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
        # Never written to: they take no memory.
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
        variables: dict from path to variable, all of which the rules set.
        allow_nonfinite: bool, whether NaN and infinity may pass.
        progress: callable, told how many rules are done.

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
        # Before any sum, which half precision would round or overflow.
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
    """What too small a type cannot hold is infinite, and found as such."""
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def read_extra(rules, tensors, kept):
    """What goes back on export though nothing reads it.

    Args:
        rules: list of `Rule`.
        tensors: `Tensors`.
        kept: list of str, names from `unread_keys`.

    Returns:
        dict from name to array; the padding rows of RoBERTa's positions are
        named `<tensor>[:2]`, and the row that was folded into the others
        keeps its name.
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
    """The tensors of a model, as the rules name them.

    Args:
        rules: list of `Rule`.
        variables: dict from path to variable.
        extra: dict as `read_extra` gives it.

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
            # The sum of both tables is kept, row by row.
            saved[0][:PADDING_ROWS] = rows + extra.pop(folded, 0)
        for key, value in zip(rule.keys, saved, strict=True):
            tensors[key] = np.array(value, order="C")
    return {**extra, **tensors}
