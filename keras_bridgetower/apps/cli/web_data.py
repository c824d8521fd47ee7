"""The command that filters a web data set by how well its pairs match."""

import dataclasses
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import preset_option
from keras_bridgetower.presets.table import default_preset

DEFAULT = default_preset("BridgeTowerRetrieval")
# Scores, and the heads of which one makes each.
HEADS = {"itm": ("itm", "rank"), "itc": ("itc",)}
# Bad samples that are named one by one.
NAMED = 10


def filter(
    context: typer.Context,
    source: Annotated[
        pathlib.Path,
        typer.Argument(
            help="Tar of WebDataset, or folder of tars or of img2dataset."
        ),
    ],
    out: Annotated[
        pathlib.Path, typer.Argument(help="Folder to write, new or begun.")
    ],
    keep: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the samples to keep, such as 0.3."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest score to keep.")
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--score",
            help="itm (matching head) or itc (contrastive head). May be given "
            "again; the first one decides. [default: itm, itc]",
        ),
    ] = None,
    tars: Annotated[
        bool, typer.Option("--tars", help="Write what is kept as tars too.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pairs of a forward pass.")
    ] = 32,
    preset: preset_option(True) = DEFAULT,
    as_json: AsJson = False,
):
    """Keep the best image-text pairs of a web data set.

    Writes a table of scores and one of what is kept for each shard. It may be
    killed at any time: the same command continues. To keep another share, run
    it again: the scores stay.
    """
    scores = tuple(scores or HEADS)
    if set(scores) - set(HEADS):
        raise UsageError(
            f"`--score` must be one of {', '.join(HEADS)}. "
            f"Received: {', '.join(scores)}"
        )
    if (keep is None) == (threshold is None):
        raise UsageError("Give `--keep` or `--threshold`, and not both.")
    for score in scores:
        models.check_preset(preset, HEADS[score])
    with output.progress("Scoring shards") as update:
        frameworks.load(context.obj)
        from keras_bridgetower.apps.filtering import run as filtering

        report = filtering.run(
            source,
            out,
            preset,
            scores,
            keep_share=keep,
            threshold=threshold,
            write_tars=tars,
            batch_size=batch_size,
            on_shards=update,
        )
    found = dataclasses.asdict(report)
    named = found.pop("bad_samples")
    for shard, key, error in named[:NAMED]:
        output.warn(f"{key} of {shard} has no score: {error}")
    if report.bad > NAMED:
        output.warn(
            f"{report.bad} samples in all have no score. The tables in "
            f"{out / 'scores'} say why."
        )
    value = {"out": out, "preset": preset, **found}
    value["bad_samples"] = [
        {"shard": shard, "key": key, "error": error}
        for shard, key, error in named
    ]
    output.show(as_json, value, ("what", "value"), list(found.items()))
