"""The command that runs a task over many rows."""

import os
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.presets.verbs import BUILT_IN
from keras_bridgetower.startup import OWN_MODULES

# The heading of the options that need Apache Beam.
MANY = "Many machines"


def predict(
    context: typer.Context,
    preset: models.preset_argument("Preset of the task."),
    task: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(BUILT_IN)}; or one of your own.",
            autocompletion=lambda: tuple(BUILT_IN),
        ),
    ],
    source: Annotated[
        pathlib.Path,
        typer.Argument(help="Folder of pictures, or table (.csv, .jsonl)."),
    ],
    out: Annotated[
        str,
        typer.Argument(
            help="JSONL file, new or begun; with `--runner` a folder."
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text for every picture. May be given again."),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=1, help="Answers of a row, best first.")
    ] = 1,
    batch_size: models.batch_option("Rows") = 32,
    outside: Annotated[
        bool, typer.Option(help="Let a table name pictures anywhere.")
    ] = False,
    runner: Annotated[
        str | None,
        typer.Option(
            help="Run on many machines, by this runner of Apache Beam.",
            rich_help_panel=MANY,
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Option of the pipeline. May be given again.",
            rich_help_panel=MANY,
        ),
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            help="Folder of the pictures as the workers see it.",
            rich_help_panel=MANY,
        ),
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows of a file of results. [default: 2000]",
            rich_help_panel=MANY,
        ),
    ] = None,
    as_json: AsJson = False,
):
    """Run a task over a folder of pictures or a table.

    Writes a line of JSON for each row. If it is interrupted, the same command
    continues. A row that cannot be read gets a line with its error.
    """
    values = dict(options=options, pictures=pictures, shard_rows=shard_rows)
    values = {name: value for name, value in values.items() if value}
    if values and not runner:
        raise UsageError(
            "`--set`, `--pictures` and `--shard-rows` need `--runner`."
        )
    # The names of your own tasks are known once their modules are imported.
    if task not in BUILT_IN and not os.environ.get(OWN_MODULES):
        raise UsageError(
            f"TASK must be one of {', '.join(BUILT_IN)}; set {OWN_MODULES} to "
            f"the module of your own task. Received: {task!r}"
        )
    models.check_preset(preset)
    rows = (preset, task, source, out, text or (), top_k, batch_size, outside)
    with output.progress("Predicting") as on_rows:
        frameworks.load(context.obj)
        from keras_bridgetower.apps.predict import on_beam
        from keras_bridgetower.apps.predict import run
        from keras_bridgetower.apps.predict.run import UnfitSetting

        try:
            if runner:
                with frameworks.quiet_processes(context.obj):
                    found = on_beam.run(*rows, runner=runner, **values)
                bad, passed_over = found.bad, found.passed_over
            else:
                bad, passed_over = run.run(*rows, on_rows)
        except UnfitSetting as error:
            raise UsageError(str(error)) from error
    value = {
        "out": out,
        "unreadable_rows": bad,
        "passed_over": dict(passed_over),
    }
    lines = [(line,) for line in run.report(bad, passed_over)]
    output.show(as_json, value, ("result",), lines)
