"""Converts a checkpoint or exports a preset, and says what came of it.

`from_preset` converts by itself. Whoever does it by hand gets a folder in a
chosen place, the answers of a VQA checkpoint, and a comparison with the source.
"""

import pathlib
import tempfile
import warnings

import keras
import numpy as np
import safetensors

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.convert import self_check
from keras_bridgetower.convert import transfer
from keras_bridgetower.convert.answers import read_answers
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.transformers_folder import CLASSES


def to_preset(
    source,
    destination,
    head=None,
    answers=(),
    text_heads=None,
    ignore=(),
    allow_nonfinite=False,
    verify=False,
    progress=lambda done, count: None,
):
    """Convert weights of another library to a preset folder.

    Args:
        source: path of a `transformers` folder, or of a checkpoint file of
            the authors.
        destination: path of a folder that does not exist yet.
        head: str, which the source must have, such as `"itm"`.
        answers: paths of files with the answers of a VQA head, see
            `read_answers`. This and the next two are for a file.
        text_heads: int, attention heads of the text encoder.
        ignore: patterns of tensors that may be left out.
        allow_nonfinite: bool, whether weights may be NaN or infinite.
        verify: bool, whether to open the new preset and compare every tensor
            with the source.
        progress: callable of the number of tensors done and of all.

    Returns:
        dict from words to what was found: counts, heads, and the difference
        to transformers' outputs.

    Raises:
        ConversionError: weights that cannot be read or do not fit.
        ValueError: no source, or one without the head, or `destination`
            exists.
    """
    source = pathlib.Path(source)
    if not source.exists():
        raise ValueError(
            "`source` must exist: a `transformers` folder or a checkpoint "
            f"file of the authors. Received: {str(source)!r}"
        )
    settings = {}
    if source.is_file():
        settings = dict(
            text_heads=text_heads,
            ignore=tuple(ignore),
            answers=read_answers(*answers) if answers else None,
        )
    checkpoint = cache.open_checkpoint(source, **settings)
    if head and head not in checkpoint.heads:
        raise ValueError(
            f"`--task` must be a head of the source, which holds "
            f"{', '.join(checkpoint.heads) or 'none'}. "
            f"Received: --task {head}"
        )
    count = len(checkpoint.rules)
    checkpoint.save_to_preset(
        destination,
        allow_nonfinite=allow_nonfinite,
        progress=lambda done: progress(done, count),
    )
    return _summary(checkpoint, source, destination, verify)


def to_transformers(preset, destination, verify=False):
    """Export a preset to a folder that `transformers` opens.

    Every head that transformers knows goes into one file, the others into
    head.safetensors beside it.

    Args:
        preset: as `from_preset` takes it.
        destination: path of a folder that does not exist yet.
        verify: bool, whether to run both on the same random input.

    Returns:
        dict from words to what was found.

    Raises:
        ConversionError: transformers cannot run this architecture.
        ValueError: no such preset, or `destination` exists.
    """
    parts = export.parts_of_preset(preset)
    export.write(parts, destination)
    folder = pathlib.Path(destination)
    file = safetensors.safe_open(folder / export.WEIGHTS, framework="np")
    shapes = [file.get_slice(key).get_shape() for key in list(file.keys())]
    classes = [CLASSES[name] for name in parts.values if name in CLASSES]
    found = {
        "tensors": len(shapes),
        "parameters": f"{sum(int(np.prod(s)) for s in shapes):,}",
        "classes": ", ".join(classes) or "BridgeTowerModel",
        "processor files": "yes" if parts.tokenizer else "no tokenizer",
    }
    if verify:
        difference = self_check.pooled_difference(parts.backbone, folder)
        found["max |difference|"] = self_check.difference_text(difference)
    return found


def _summary(checkpoint, source, destination, verify):
    parts = export.parts_of_preset(destination)
    layers = [parts.backbone, *(parts.heads[name] for name in parts.heads)]
    try:
        difference = _difference(parts, source)
        check = self_check.difference_text(difference)
    except ConversionError:
        check = "not done: transformers cannot run this architecture"
    found = {
        "tensors in the source": len(checkpoint.tensors.shapes),
        "of them read by nothing": len(checkpoint.unread),
        "heads": ", ".join(checkpoint.heads) or "none",
        "parameters": f"{sum(x.count_params() for x in layers):,}",
        "image size": parts.backbone.image_size,
        "tokenizer": "yes" if parts.tokenizer else "none found",
        "self-check, max |difference|": check,
    }
    if verify:
        found["tensors equal to the bit"] = _equal_tensors(checkpoint, parts)
    return found


def _difference(parts, source):
    """Pooled outputs beside transformers' for the same random input."""
    if source.is_dir():
        return self_check.pooled_difference(parts.backbone, source)
    # The authors' names are unknown there: by way of our export.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = pathlib.Path(folder) / "exported"
        export.write(parts, exported)
        return self_check.pooled_difference(parts.backbone, exported)


def _equal_tensors(checkpoint, parts):
    """Count the tensors of the source that stand in the preset unchanged."""
    variables = transfer.variables_of(
        parts.backbone,
        *(parts.heads[name] for name in parts.heads),
        encoder=parts.backbone.image_encoder,
    )
    equal = 0
    for rule in checkpoint.rules:
        shapes = [tuple(variables[path].shape) for path in rule.variables]
        read = [checkpoint.tensors.read(key) for key in rule.keys]
        for path, value in zip(
            rule.variables, rule.layout.load(read, shapes), strict=True
        ):
            saved = keras.ops.convert_to_numpy(variables[path])
            if not np.array_equal(
                saved, value.astype("float32"), equal_nan=True
            ):
                raise _differs(checkpoint, rule.keys)
        equal += len(rule.keys)
    for key in checkpoint.unread:
        kept = parts.backbone.extra[key]
        if not np.array_equal(kept, checkpoint.tensors.read(key)):
            raise _differs(checkpoint, [key])
    return equal + len(checkpoint.unread)


def _differs(checkpoint, keys):
    return ConversionError(
        "The preset differs from its source.", checkpoint.tensors.path, keys
    )
