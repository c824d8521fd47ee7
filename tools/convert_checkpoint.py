"""Convert weights of another library to a preset folder.

    python tools/convert_checkpoint.py SRC DST
    python tools/convert_checkpoint.py vqa.ckpt DST --answers A.json B.json

SRC is a `transformers` folder or a checkpoint file of the authors; DST a new
folder for `from_preset`. Every head of the source is kept.
"""

import argparse
import pathlib
import sys
import tempfile
import warnings

import peer_check  # First: torch must be imported before TensorFlow.

import keras  # isort: skip
import numpy as np

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.convert import transfer
from keras_bridgetower.convert.answers import read_answers
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.export import parts_of_preset


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument(
        "--task", help="refuse a source without this head, such as itm or vqa"
    )
    parser.add_argument("--answers", nargs="+", help="file of VQA answers")
    parser.add_argument("--text-heads", type=int)
    parser.add_argument("--ignore", nargs="+", default=(), metavar="PATTERN")
    parser.add_argument("--allow-nonfinite", action="store_true")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="open the new preset and compare every tensor with the source",
    )
    arguments = parser.parse_args()
    try:
        convert(arguments)
    except (ConversionError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def convert(arguments):
    source = pathlib.Path(arguments.source)
    if not source.exists():
        raise ValueError(f"SRC must exist. Received: {arguments.source!r}")
    settings = {}
    if source.is_file():
        settings = dict(
            text_heads=arguments.text_heads,
            ignore=tuple(arguments.ignore),
            answers=arguments.answers and read_answers(*arguments.answers),
        )
    checkpoint = cache.open_checkpoint(source, **settings)
    if arguments.task and arguments.task not in checkpoint.heads:
        raise ValueError(
            f"`--task` must be a head of the source, which holds "
            f"{', '.join(checkpoint.heads) or 'none'}. "
            f"Received: --task {arguments.task}"
        )
    bar = keras.utils.Progbar(len(checkpoint.rules), unit_name="tensor")
    checkpoint.save_to_preset(
        arguments.destination,
        allow_nonfinite=arguments.allow_nonfinite,
        progress=bar.update,
    )
    summary(checkpoint, arguments)


def summary(checkpoint, arguments):
    parts = parts_of_preset(arguments.destination)
    shapes = checkpoint.tensors.shapes
    layers = [parts.backbone, *(parts.heads[name] for name in parts.heads)]
    try:
        check = peer_check.difference_text(self_check(parts, arguments))
    except ConversionError:
        check = "not done: transformers cannot run this architecture"
    rows = [
        ("tensors in the source", len(shapes)),
        ("of them read by nothing", len(checkpoint.unread)),
        ("heads", ", ".join(checkpoint.heads) or "none"),
        ("parameters", f"{sum(x.count_params() for x in layers):,}"),
        ("image size", parts.backbone.image_size),
        ("tokenizer", "yes" if parts.tokenizer else "none found"),
        ("self-check, max |difference|", check),
    ]
    if arguments.verify:
        rows.append(("tensors equal to the bit", verify(checkpoint, parts)))
    for name, value in rows:
        print(f"{name:30} {value}")


def self_check(parts, arguments):
    """Pooled outputs beside transformers' for the same random input."""
    source = pathlib.Path(arguments.source)
    if source.is_dir():
        return peer_check.pooled_difference(parts.backbone, source)
    # The authors' names are unknown there: by way of our export.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = pathlib.Path(folder) / "exported"
        export.write(parts, exported)
        return peer_check.pooled_difference(parts.backbone, exported)


def verify(checkpoint, parts):
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
                raise ConversionError(
                    "The preset differs from its source.",
                    checkpoint.tensors.path,
                    rule.keys,
                )
        equal += len(rule.keys)
    for key in checkpoint.unread:
        kept = parts.backbone.extra[key]
        if not np.array_equal(kept, checkpoint.tensors.read(key)):
            raise ConversionError(
                "The preset differs from its source.",
                checkpoint.tensors.path,
                [key],
            )
    return equal + len(checkpoint.unread)


if __name__ == "__main__":
    main()
