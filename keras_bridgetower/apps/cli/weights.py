"""Commands that convert, export and quantize weights."""

import gc
import os
import pathlib
import warnings
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.files import FolderExists

# Both use transformers, which runs on PyTorch.
BEFORE_KERAS = ("torch",)
TRANSFORMERS = "transformers"
# The keys of `models.exporting.formats.FORMATS`, which imports Keras, and the
# backend that writes each.
FORMATS = {
    TRANSFORMERS: "torch",
    "onnx": "torch",
    "openvino": "torch",
    "torch": "torch",
    "tf_saved_model": "tensorflow",
    "litert": "tensorflow",
}
# Formats with int8.
QUANTIZED = ("onnx", "openvino")
Destination = Annotated[
    pathlib.Path, typer.Argument(help="Folder to write, which must be new.")
]


def convert(
    context: typer.Context,
    source: Annotated[
        pathlib.Path,
        typer.Argument(
            help="`transformers` folder, or checkpoint file of the authors."
        ),
    ],
    destination: Destination,
    task: Annotated[
        str | None,
        typer.Option(
            help="Refuse a source without this head, such as itm or vqa."
        ),
    ] = None,
    answers: Annotated[
        list[pathlib.Path] | None,
        typer.Option(
            help="File of the answers of a VQA head. May be given again."
        ),
    ] = None,
    text_heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads of the text encoder."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Tensors that may be left out. May be given again.",
        ),
    ] = None,
    allow_nonfinite: Annotated[
        bool,
        typer.Option("--allow-nonfinite", help="Allow NaN and infinity."),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Open the new preset and compare every tensor with the "
            "source.",
        ),
    ] = False,
    as_json: AsJson = False,
):
    """Convert weights of another library to a preset folder.

    Every head of the source is kept.
    """
    with output.progress("Converting") as update:
        frameworks.load(context.obj, first=BEFORE_KERAS)
        from keras_bridgetower.convert import by_hand

        found = by_hand.to_preset(
            source,
            destination,
            task,
            answers or (),
            text_heads,
            ignore or (),
            allow_nonfinite,
            verify,
            update,
        )
    _show(as_json, found)


def export(
    context: typer.Context,
    preset: models.preset_argument("Preset to export."),
    destination: Annotated[
        pathlib.Path,
        typer.Argument(
            help="New folder, or a file with the suffix of the format, such "
            "as vqa.onnx."
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(FORMATS)}.",
            autocompletion=lambda: tuple(FORMATS),
        ),
    ] = TRANSFORMERS,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task to export, such as vqa. By default the one of the "
            "preset's name, or that it was saved as."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Only image_tower, text_tower or fusion, for programs that "
            "keep what the towers return."
        ),
    ] = None,
    int8: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="SAMPLES",
            help="Compute in int8, with the ranges of these samples: a folder "
            "of pictures, or a table (.csv, .jsonl) as `predict` reads it.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Text for every picture of --int8. May be given again."
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Run both on the same random input."),
    ] = False,
    as_json: AsJson = False,
):
    """Export a preset for programs without Keras, or for transformers.

    A folder for onnx or openvino has a `run.py`, which runs the model without
    Keras. A folder for transformers has every head; heads that transformers
    does not know are in head.safetensors.
    """
    models.check_preset(preset)
    if format not in FORMATS:
        raise UsageError(
            f"`--format` must be one of {', '.join(FORMATS)}. "
            f"Received: --format {format}"
        )
    if text and not int8:
        raise UsageError("`--text` needs `--int8`.")
    if int8 and (part or format not in QUANTIZED):
        raise UsageError(
            f"`--int8` needs `--format` {' or '.join(QUANTIZED)}, and no "
            "`--part`."
        )
    if format == TRANSFORMERS:
        if task or part:
            raise UsageError(
                "`--task` and `--part` need another `--format` than "
                "transformers, which gets every head."
            )
        with output.status("Exporting"):
            frameworks.load(context.obj, first=BEFORE_KERAS)
            from keras_bridgetower.convert import by_hand

            found = by_hand.to_transformers(preset, destination, verify)
    else:
        if verify:
            raise UsageError("`--verify` needs `--format transformers`.")
        # Unless the user chose one, take a backend that can write the format.
        if "KERAS_BACKEND" not in os.environ:
            _check_installed(format)
            os.environ["KERAS_BACKEND"] = FORMATS[format]
        with output.status("Exporting"):
            frameworks.load(context.obj, first=BEFORE_KERAS)
            from keras_bridgetower.apps.predict.calibration import (
                calibration_samples,
            )
            from keras_bridgetower.tasks import by_name

            opened = by_name.open_task(preset, task)
            samples = (
                calibration_samples(opened, int8, text or ()) if int8 else None
            )
            opened.export(
                destination,
                format,
                verbose=False,
                part=part,
                calibration=samples,
            )
        found = {
            "task": type(opened).__name__,
            "part": part or "all",
            "format": format,
            "written": str(destination),
        }
        if int8:
            found["calibrated on"] = len(next(iter(samples.values())))
    _show(as_json, found)


def _show(as_json, found):
    output.show(as_json, found, ("what", "found"), list(found.items()))


def _check_installed(format):
    """Raise if the only backend that can write a format is not installed."""
    backend = FORMATS[format]
    if backend not in frameworks.installed_backends():
        raise frameworks.BackendMissing(
            f"`--format {format}` is written by the backend {backend}, which "
            "is not installed: `pip install "
            f'"keras-bridgetower[{backend},export]"`.'
        )


def quantize(
    context: typer.Context,
    preset: models.preset_argument("Preset to quantize."),
    destination: Destination,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task whose heads are kept, such as vqa. By default the one "
            "of the preset's name, or that it was saved as."
        ),
    ] = None,
    as_json: AsJson = False,
):
    """Write a preset whose matrices are 8-bit integers.

    Its weights take about a quarter of the space of float32. It opens on every
    backend. Evaluate it before you use it.
    """
    models.check_preset(preset)
    if destination.exists():
        raise FolderExists(destination)
    with output.status("Quantizing"):
        frameworks.load(context.obj)
        from keras_bridgetower.backend.layer_records import check_not_quantized
        from keras_bridgetower.tasks import by_name

        opened = by_name.open_task(preset, task, "quantize")
        check_not_quantized(opened, "`quantize`")
        # Keras collects garbage after each layer; skip existing objects.
        gc.freeze()
        try:
            with warnings.catch_warnings():
                # Other kinds of layers, such as norms, are not quantized.
                warnings.filterwarnings("ignore", "Layer .* does not have a")
                opened.quantize("int8")
        finally:
            gc.unfreeze()
        opened.save_to_preset(destination)
    found = {
        "task": type(opened).__name__,
        "parameters": opened.count_params(),
        "weight_bytes": sum(
            path.stat().st_size for path in destination.glob("*.h5")
        ),
        "written": str(destination),
    }
    _show(as_json, found)
