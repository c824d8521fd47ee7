"""Commands for data sets: build, show, filter, train on them, evaluate."""

import contextlib
import dataclasses
import os
import pathlib
import sys
import types

import typer

from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import DEFAULTS
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import argument
from keras_bridgetower.apps.cli.models import option
from keras_bridgetower.apps.cli.models import preset_option
from keras_bridgetower.presets.verbs import EMBED_IMAGES
from keras_bridgetower.presets.verbs import SCORE

# The heads that can compute each score of `filter`.
SCORE_HEADS = {"itm": SCORE.heads, "itc": EMBED_IMAGES.heads}
# Bad samples that `filter` names one by one.
NAMED = 10
Name = argument(
    str, "Data set, such as vqav2, coco, nlvr2, or own for your table."
)
Root = argument(pathlib.Path, "Folder of the original files.")
Folder = argument(pathlib.Path, "Folder of the records.")
Protocol = option(str, "Which files form which splits.")
Splits = option(
    list[str] | None, "Only this split. May be given again.", "--splits"
)
Values = option(
    list[str] | None,
    "Further option of the data set. May be given again.",
    "--set",
    metavar="KEY=VALUE",
)


def check(
    context: typer.Context,
    name: Name,
    root: Root,
    protocol: Protocol = "honest",
    splits: Splits = None,
    values: Values = None,
    as_json: AsJson = False,
):
    """List expected and found files, counts, and the first bad picture.

    Exits with 1 if anything is missing or damaged.
    """
    with output.progress("Checking") as update:
        frameworks.load(context.obj)
        from keras_bridgetower.data.datasets import by_name as building

        data = building.open_original(name, root, values or (), protocol)
        reports = data.check(protocol, splits, _counted(update))
    good = all(report.ok for report in reports)
    value = {
        "good": good,
        "parts": [
            {**dataclasses.asdict(report), "ok": report.ok}
            for report in reports
        ],
    }
    lines = [*reports]
    if not good:
        lines.append("Some files are missing or damaged: see the lines above.")
    _show_lines(as_json, value, map(str, lines))
    if not good:
        raise typer.Exit(errors.FAILED)


def build(
    context: typer.Context,
    name: Name,
    root: Root,
    folder: Folder,
    protocol: Protocol = "honest",
    splits: Splits = None,
    values: Values = None,
    shards: option(int | None, "Files of a split.", min=1) = None,
    seed: option(int, "Seed of the order.") = 0,
    workers: option(int | None, "Processes. By default, cores.", min=1) = None,
    max_bad_share: option(
        float, "Share of records that may be left out.", min=0, max=1
    ) = 0.0,
    runner: option(str | None, "Write by this runner of Apache Beam.") = None,
    as_json: AsJson = False,
):
    """Write the splits of a data set as records.

    If it is interrupted, the same command continues.
    """
    left_out = []
    with output.progress("Writing shards") as update:
        frameworks.load(context.obj)
        from keras_bridgetower.data import look
        from keras_bridgetower.data.datasets import by_name as building
        from keras_bridgetower.data.records import write

        with frameworks.quiet_processes(context.obj):
            building.build_splits(
                building.open_original(name, root, values or (), protocol),
                folder,
                protocol,
                splits,
                on_left_out=lambda *record: left_out.append(record),
                num_shards=shards,
                seed=seed,
                max_bad_share=max_bad_share,
                run=write.on_beam(runner)
                if runner
                else write.in_processes(workers or os.cpu_count()),
                on_shard=update,
            )
    found = look.contents(folder)
    lines = [f"  left out {key}: {reason}" for key, reason in left_out]
    records = [{"record": key, "reason": why} for key, why in left_out]
    _show_lines(
        as_json, {**found, "left_out": records}, [*lines, *look.lines(found)]
    )


def stats(
    context: typer.Context,
    folder: Folder,
    verify: option(bool, "Read all records and check their sums.") = False,
    as_json: AsJson = False,
):
    """Print the splits and sizes of a data set."""
    with output.status("Reading"):
        frameworks.load(context.obj)
        from keras_bridgetower.data import look

        found = look.contents(folder, verify)
    _show_lines(as_json, found, look.lines(found))
    if found["damaged"]:
        raise ValueError(
            f"{len(found['damaged'])} shards are damaged; build again."
        )


def show(
    context: typer.Context,
    folder: Folder,
    split: argument(str, "Split, such as train."),
    picture: argument(pathlib.Path, "Picture file to write."),
    count: option(int, "Samples to draw.", min=1) = 12,
    seed: option(int, "Seed of the choice.") = 0,
    as_json: AsJson = False,
):
    """Draw some samples of a split into one picture."""
    with output.status("Drawing"):
        frameworks.load(context.obj)
        from keras_bridgetower.data import look

        drawn, samples = look.draw(folder, split, picture, count, seed)
    value = {"picture": str(picture), "drawn": drawn, "samples": samples}
    line = f"{drawn} of {samples:,} samples: {picture}"
    _show_lines(as_json, value, [line])


def _show_lines(as_json, value, lines):
    """Print JSON, or lines."""
    if as_json:
        output.show(True, value, (), ())
    else:
        output.print_lines(lines)


def _counted(update):
    """Return a wrapper of a list of records that reports progress."""

    def counted(items):
        for number, item in enumerate(items, 1):
            yield item
            update(number, len(items))

    return counted


def filter(
    context: typer.Context,
    source: argument(
        pathlib.Path, "Tar of WebDataset, or folder of tars or of img2dataset."
    ),
    out: argument(pathlib.Path, "Folder to write, new or begun."),
    keep: option(
        float | None, "Share of the samples to keep, such as 0.3.", min=0, max=1
    ) = None,
    threshold: option(float | None, "Lowest score to keep.") = None,
    scores: option(
        list[str] | None,
        "itm (matching head) or itc (contrastive head). May be given again; "
        "the first one decides. [default: itm, itc]",
        "--score",
    ) = None,
    tars: option(bool, "Write the kept samples as tars too.", "--tars") = False,
    batch_size: models.batch_option("Pairs") = 32,
    preset: preset_option() = DEFAULTS[SCORE.name],
    as_json: AsJson = False,
):
    """Keep the best image-text pairs of a web data set.

    Writes a table of scores, and one of the kept samples, for each shard. If it
    is interrupted, the same command continues. To keep another share, run it
    again: the scores are reused.
    """
    scores = tuple(scores or SCORE_HEADS)
    if set(scores) - set(SCORE_HEADS):
        raise UsageError(
            f"`--score` must be one of {', '.join(SCORE_HEADS)}. "
            f"Received: {', '.join(scores)}"
        )
    if (keep is None) == (threshold is None):
        raise UsageError("Give `--keep` or `--threshold`, and not both.")
    for score in scores:
        models.check_preset(preset, SCORE_HEADS[score])
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
            f"{report.bad} samples in all have no score. See the column error "
            f"of the tables in {out / 'scores'}."
        )
    value = {"out": out, "preset": preset, **found}
    value["bad_samples"] = [
        {"shard": shard, "key": key, "error": error}
        for shard, key, error in named
    ]
    output.show(as_json, value, ("what", "value"), list(found.items()))


Changes = option(
    list[str] | None,
    "Override a recipe field, such as batch_size=64. May be given again.",
    *("--set", "-s"),
    metavar="FIELD=VALUE",
)


def train(
    context: typer.Context,
    recipe: argument(str, "Recipe of the paper, such as vqa_base."),
    data: option(list[pathlib.Path], "Folder of records. May be given again."),
    init: option(
        str | None,
        "Preset to start from.",
        autocompletion=models.names_starting,
    ) = None,
    encoders: option(
        tuple[str, str] | None,
        "Uni-modal encoders to start from.",
        metavar="IMAGE TEXT",
    ) = None,
    out: option(
        pathlib.Path, "Folder of checkpoints and presets.", "--output"
    ) = pathlib.Path("runs"),
    seed: option(int, "Seed of the run.") = 0,
    every: option(int, "Updates between checkpoints.", min=1) = 1000,
    force_resume: option(
        bool,
        "Resume although settings, versions or data changed.",
        "--force-resume",
    ) = False,
    other_hosts: option(
        bool, "Resume with another number of processes.", "--other-hosts"
    ) = False,
    distribute: option(
        str, "Devices, as `kbt.distribute` takes them."
    ) = "auto",
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
    folder: argument(pathlib.Path, "Folder of records."),
    splits: option(
        list[str] | None,
        "Split to score. May be given again. By default validation and test, "
        "if they exist.",
        "--split",
    ) = None,
    recipe: option(
        str | None,
        "Recipe whose evaluation is used. By default the first of the data's "
        "task, with the image size of the preset.",
    ) = None,
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
