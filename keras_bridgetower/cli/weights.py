"""Commands that bring weights of other libraries in, and out again."""

import pathlib
from typing import Annotated

import typer

from keras_bridgetower.cli import frameworks
from keras_bridgetower.cli import models
from keras_bridgetower.cli import output
from keras_bridgetower.cli.models import AsJson

# Both are compared with transformers, which runs on PyTorch.
BEFORE_KERAS = ("torch",)
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
    preset: Annotated[
        str,
        typer.Argument(
            help="Preset to export.", autocompletion=models.names_starting
        ),
    ],
    destination: Destination,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Run both on the same random input."),
    ] = False,
    as_json: AsJson = False,
):
    """Export a preset to a folder that `transformers` opens.

    Heads that transformers does not know go into head.safetensors beside the
    others.
    """
    models.check_preset(preset)
    with output.status("Exporting"):
        frameworks.load(context.obj, first=BEFORE_KERAS)
        from keras_bridgetower.convert import by_hand

        found = by_hand.to_transformers(preset, destination, verify)
    _show(as_json, found)


def _show(as_json, found):
    output.show(as_json, found, ("what", "found"), list(found.items()))
