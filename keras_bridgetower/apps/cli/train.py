"""Commands that train by a recipe and evaluate presets."""

import contextlib
import pathlib
import sys
import types
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson

Changes = Annotated[
    list[str] | None,
    typer.Option(
        *("--set", "-s"),
        metavar="FIELD=VALUE",
        help="Override a recipe field, such as batch_size=64. May be given "
        "again.",
    ),
]


def train(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="Recipe of the paper, such as vqa_base.")
    ],
    data: Annotated[
        list[pathlib.Path],
        typer.Option(help="Folder of records. May be given again."),
    ],
    init: Annotated[
        str | None,
        typer.Option(
            help="Preset to start from.", autocompletion=models.names_starting
        ),
    ] = None,
    encoders: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="IMAGE TEXT", help="Uni-modal encoders to start from."
        ),
    ] = None,
    out: Annotated[
        pathlib.Path,
        typer.Option("--output", help="Folder of checkpoints and presets."),
    ] = pathlib.Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    every: Annotated[
        int, typer.Option(min=1, help="Updates between checkpoints.")
    ] = 1000,
    force_resume: Annotated[
        bool,
        typer.Option(
            "--force-resume",
            help="Resume although settings, versions or data changed.",
        ),
    ] = False,
    other_hosts: Annotated[
        bool,
        typer.Option(
            "--other-hosts", help="Resume with another number of processes."
        ),
    ] = False,
    distribute: Annotated[
        str, typer.Option(help="Devices, as `kbt.distribute` takes them.")
    ] = "auto",
    changes: Changes = None,
    as_json: AsJson = False,
):
    """Train by a recipe of the paper, and save a preset.

    Prints the recipe and where it differs from the paper's, and the scores of
    the validation and test splits. The same command continues a run that was
    interrupted. PyTorch needs a process for each device: `torchrun
    --nproc-per-node=8 -m keras_bridgetower train ...`.
    """
    if (init is None) == (encoders is None):
        raise UsageError("Give one of `--init` and `--encoders IMAGE TEXT`.")
    if init:
        models.check_preset(init)
    bars = sys.stdout.isatty() and not as_json
    with output.status("Loading Keras"):
        frameworks.load(context.obj, bars=bars, datasets=True)
    from keras_bridgetower.training import train as training

    settings = types.SimpleNamespace(
        data=data,
        init=init,
        encoders=encoders and list(encoders),
        output=out,
        seed=seed,
        every=every,
        force_resume=force_resume,
        other_hosts=other_hosts,
        distribute=distribute,
    )
    chosen = _recipe(recipe, changes)
    # With `--json`, stdout has one document and nothing else.
    stream = sys.stderr if as_json else sys.stdout
    with contextlib.redirect_stdout(stream):
        preset, scores = training.run(chosen, settings)
    if as_json:
        value = {"recipe": recipe, "preset": str(preset), "scores": scores}
        output.show(True, value, (), ())


def evaluate(
    context: typer.Context,
    preset: models.preset_argument("Preset to score."),
    folder: Annotated[pathlib.Path, typer.Argument(help="Folder of records.")],
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            help="Split to score. May be given again. By default validation "
            "and test, if they exist.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose evaluation is used. By default the first of "
            "the data's task, with the image size of the preset."
        ),
    ] = None,
    batch_size: models.batch_option("Samples") = 32,
    as_json: AsJson = False,
):
    """Score a preset on records, by the official protocol of their task."""
    models.check_preset(preset)
    with output.status(f"Scoring {preset}"):
        frameworks.load(context.obj, datasets=True)
        from keras_bridgetower.training import evaluate as evaluation

        scores = evaluation.run(
            preset,
            folder,
            splits,
            recipe=recipe,
            batch_size=batch_size,
        )
    rows = [
        (split, name, score)
        for split, found in scores.items()
        for name, score in (found or {"no labels": None}).items()
    ]
    value = {"preset": preset, "data": str(folder), "scores": scores}
    output.show(as_json, value, ("split", "score", "value"), rows)


def _recipe(name, changes):
    """Return a recipe with the values of `--set`."""
    from keras_bridgetower.training import recipes
    from keras_bridgetower.training import train as training

    names = training.recipe_names()
    if name not in names:
        # For an unknown name, raises an error with the nearest one.
        recipes.get(name)
        raise UsageError(
            f"RECIPE must be one of {', '.join(names)}: recipes of GLUE and "
            f"CIFAR read no such data sets. Received: {name!r}"
        )
    try:
        return training.with_changes(recipes.get(name), changes or ())
    except ValueError as error:
        raise UsageError(str(error)) from error
