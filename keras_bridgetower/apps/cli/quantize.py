"""The command that writes a preset with 8-bit integers in place of floats."""

import gc
import pathlib
import warnings
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.files import FolderExists


def quantize(
    context: typer.Context,
    preset: Annotated[
        str,
        typer.Argument(
            help="Preset to quantize.", autocompletion=models.names_starting
        ),
    ],
    destination: Annotated[
        pathlib.Path, typer.Argument(help="Folder to write, which must be new.")
    ],
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

    Its weights take about a quarter of the room of float32. It opens as every
    preset does, on every backend. Score it before you use it.
    """
    models.check_preset(preset)
    if destination.exists():
        raise FolderExists(destination)
    with output.status("Quantizing"):
        frameworks.load(context.obj)
        from keras_bridgetower.backend.quantization import check_not_quantized
        from keras_bridgetower.tasks import by_name

        opened = by_name.open_task(preset, task, "quantize")
        check_not_quantized(opened, "`quantize`")
        # Keras searches for garbage after each layer: not in what is here yet.
        gc.freeze()
        try:
            with warnings.catch_warnings():
                # Layers of other kinds, such as norms, stay as they are.
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
    output.show(as_json, found, ("what", "found"), list(found.items()))
