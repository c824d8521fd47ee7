"""Commands for data sets and training."""

import contextlib
import dataclasses
import os
import pathlib
import sys
import types
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError

GB = 1e9
PLAN_COLUMNS = (
    *("kind", "activations", "GB a device", "fits", "largest batch"),
    *("GFLOP a row", "GB sent", "rows a second", "MB read", "hours", "cost"),
)
ONLY_COUNTED = ("rows", "row_bytes", "utilization", "network", "machines")
ONLY_COUNTED += ("window", "price")
Name = Annotated[
    str,
    typer.Argument(
        help="Data set, such as vqav2, coco, nlvr2, or own for your table."
    ),
]
Root = Annotated[
    pathlib.Path, typer.Argument(help="Folder of the original files.")
]
Place = Annotated[
    str, typer.Argument(help="Folder of the records, or its URL.")
]


def check(
    context: typer.Context,
    name: Name,
    root: Root,
    protocol: str = "honest",
    splits: models.Splits = None,
    values: models.KeyValues = None,
    as_json: models.AsJson = False,
):
    """List expected and found files, counts, and the first bad picture.

    Exits with 1 if anything is missing or damaged.

    Args:
        protocol: Which files form which splits.
        splits: Only this split. May be given again.
        values: Further option of the data set. May be given again.
    """
    with output.progress("Checking") as update:
        frameworks.load(context.obj)
        from keras_bridgetower.data.datasets import by_name as building

        data = building.open_dataset(name, root, **_options(values))
        reports = data.check(protocol, splits, _report_progress(update))
    good = all(report.ok for report in reports)
    parts = [{**dataclasses.asdict(part), "ok": part.ok} for part in reports]
    value = {"good": good, "parts": parts}
    lines = [str(report) for report in reports]
    if not good:
        lines.append("Some files are missing or damaged: see the lines above.")
    output.show_lines(as_json, value, lines)
    if not good:
        raise typer.Exit(errors.FAILED)


def build(
    context: typer.Context,
    name: Name,
    root: Root,
    folder: Place,
    protocol: str = "honest",
    splits: models.Splits = None,
    values: models.KeyValues = None,
    shards: models.CountOrNone = None,
    seed: int = 0,
    workers: models.CountOrNone = None,
    max_bad_share: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
    runner: str | None = None,
    as_json: models.AsJson = False,
):
    """Write the splits of a data set as records.

    If it is interrupted, the same command continues.

    Args:
        protocol: Which files form which splits.
        splits: Only this split. May be given again.
        values: Further option of the data set. May be given again.
        shards: Files of a split.
        seed: Seed of the order.
        workers: Processes. By default, as many as usable cores.
        max_bad_share: Share of records that may be left out.
        runner: Write by this runner of Apache Beam.
    """
    with output.progress("Writing shards") as update:
        frameworks.load(context.obj)
        from keras_bridgetower.cores import usable_cores
        from keras_bridgetower.data.datasets import by_name as building
        from keras_bridgetower.data.records import write

        with frameworks.silenced(context.obj):
            left_out = building.build_splits(
                building.open_dataset(name, root, **_options(values)),
                folder,
                protocol,
                splits,
                num_shards=shards,
                seed=seed,
                max_bad_share=max_bad_share,
                run=write.on_beam(runner)
                if runner
                else write.in_processes(workers or usable_cores()),
                on_shard=update,
            )
    found = building.summarize(folder)
    lines = [f"  left out {key}: {reason}" for key, reason in left_out]
    records = [{"record": key, "reason": why} for key, why in left_out]
    value = {**found, "left_out": records}
    output.show_lines(as_json, value, [*lines, *_summary(found)])


def stats(
    context: typer.Context,
    folder: Place,
    verify: bool = False,
    as_json: models.AsJson = False,
):
    """Print the splits and sizes of a data set.

    Args:
        verify: Read all records and check their sums.
    """
    with output.progress("Reading"):
        frameworks.load(context.obj)
        from keras_bridgetower.data.datasets import by_name as building

        found = building.summarize(folder, verify)
    output.show_lines(as_json, found, _summary(found))
    if found["damaged"]:
        raise ValueError(
            f"{len(found['damaged'])} shards are damaged; build again."
        )


def _summary(found):
    """Yield the result of `summarize` as lines of text."""
    yield f"task {found['task']}, {found['labels']} labels"
    for name, split in found["splits"].items():
        yield (
            f"{name}: {split['records']:,} records, "
            f"{split['samples']:,} samples, {split['shards']} shards, "
            f"{split['bytes']:,} bytes, {split['left_out']} left out"
        )
        yield f"  {split['definition']}"
        for source, count in split["sources"].items():
            yield f"  {source}: {count:,} samples"
    for why in found["damaged"]:
        yield f"  DAMAGED {why}"


def _options(values):
    for value in values or ():
        if "=" not in value:
            raise UsageError(f"`--set` must be KEY=VALUE. Received: {value!r}")
    return dict(value.split("=", 1) for value in values or ())


def _report_progress(update):
    """Return a function that yields list items and reports progress."""

    def counted(items):
        for number, item in enumerate(items, 1):
            yield item
            update(number, len(items))

    return counted


def plan(
    context: typer.Context,
    recipe: str,
    devices: Annotated[str | None, typer.Option(metavar="KIND:NUMBER")] = None,
    topology: Annotated[
        str | None, typer.Option("--compile", metavar="KIND:SIDES")
    ] = None,
    distribute: str = "data_parallel",
    rows: Annotated[float | None, typer.Option(min=1, max=1e15)] = None,
    row_bytes: Annotated[float | None, typer.Option(min=1)] = None,
    utilization: float = 0.4,
    network: Annotated[float | None, typer.Option(min=1)] = None,
    machines: models.CountOrNone = None,
    window: models.Count = 16,
    price: float | None = None,
    changes: models.Changes = None,
    as_json: models.AsJson = False,
):
    """Estimate what a run needs on some devices, before it starts.

    Counts steps, operations, memory, time and cost of a recipe, with whole
    and with split weights, and with activations that are kept or computed
    again. Nothing is trained, but PyTorch must be installed. Warns if the run
    does not fit.

    Args:
        recipe: Recipe of the paper, such as pretrain_base.
        devices: Kind and number of devices, such as h100:8 or v5e:256.
        topology: In place of `--devices`, compile the step for TPUs such as
            v5e:8x8 by their compiler, without a TPU. Minutes.
        distribute: With `--compile`, devices as `kbt.distribute` takes them.
        rows: Samples of the data set, such as 4e6.
        row_bytes: Bytes of a sample, to know what an object store must
            deliver.
        utilization: Share of the operations of a device that is reached.
        network: Bytes that a device sends in a second, such as 25e9. By
            default what its maker names.
        machines: How many have the devices. By default as usual for them.
        window: That of `train`, which decides what machines fetch.
        price: Price of a device for an hour.
        changes: Override a recipe field, such as dtype=mixed_bfloat16. May be
            given again.
    """
    if (devices is None) == (topology is None):
        raise UsageError("Give one of `--devices` and `--compile`.")
    for name in context.params:
        given = context.get_parameter_source(name).name == "COMMANDLINE"
        if given and name in (("distribute",) if devices else ONLY_COUNTED):
            raise UsageError(
                f"`--{name.replace('_', '-')}` has no effect without "
                f"{'--compile' if devices else '--devices'}."
            )
    if topology:
        _compile(context, recipe, topology, distribute, changes, as_json)
        return
    kind, _, number = devices.partition(":")
    if not number.isdecimal():
        raise UsageError(
            "--devices must be KIND:NUMBER, such as h100:8. "
            f"Received: {devices!r}"
        )
    # The count does not depend on the backend that trains.
    os.environ["KERAS_BACKEND"] = "torch"
    with output.progress("Counting"):
        frameworks.load(context.obj)
        from keras_bridgetower import training
        from keras_bridgetower.training import train

        chosen = train.with_changes(training.recipes.get(recipe), changes or ())
        given = {name: context.params[name] for name in ONLY_COUNTED}
        given["rows"] = None if rows is None else int(rows)
        found = training.plan(chosen, kind, int(number), **given)
    facts = {"recipe": recipe, "devices": devices, **dataclasses.asdict(found)}
    table = [_plan_row(way) for way in found.ways]
    output.show(as_json, facts, PLAN_COLUMNS, table)
    if not as_json:
        print(f"{found.parameters:,} parameters, {found.steps:,} updates")
    if found.passes and not as_json:
        print(
            f"each row is seen {found.passes:.2f} times, and fetched "
            f"{found.fetched:.2f} times an epoch from an object store"
        )
    for way in found.ways:
        if not way.fits:
            output.warn(_plan_warning(found, way))


def _compile(context, recipe, topology, distribute, changes, as_json):
    """Print what the TPU compiler says of a step."""
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    with output.progress("Compiling"):
        frameworks.load(context.obj)
        from keras_bridgetower import training
        from keras_bridgetower.training import train

        chosen = train.with_changes(training.recipes.get(recipe), changes or ())
        with frameworks.silenced(context.obj):
            found = training.compile_step(chosen, topology, distribute)
    for why in found["warnings"]:
        output.warn(f"the step {why}")
    rows = [(k, f"{v:,}") for k, v in found.items() if k != "warnings"]
    output.show(as_json, found, ("of a device", "bytes"), rows)


def _plan_row(way):
    return (
        *(way.kind, "computed again" if way.checkpoint else "kept"),
        *(f"{way.needed / GB:.1f}", way.fits, way.largest),
        f"{way.operations / 1e9:.0f}",
        *(f"{way.sent / GB:.2f}", f"{way.rows_per_second:.0f}"),
        way.read and f"{way.read / 1e6:.1f}",
        f"{way.hours:.1f}",
        None if way.cost is None else f"{way.cost:.0f}",
    )


def _plan_warning(found, way):
    what = "computed again" if way.checkpoint else "kept"
    fix = f"{way.largest} rows a batch do: raise `accumulation` by --set"
    return (
        f"{way.kind}, activations {what}: {way.needed / GB:.0f} GB do not fit "
        f"{found.memory / GB:.0f} GB of a device; "
        f"{fix if way.largest else 'not even one row fits'}"
    )


def train(
    context: typer.Context,
    recipe: str,
    data: Annotated[list[str], typer.Option()],
    init: str | None = None,
    encoders: tuple[str, str] | None = None,
    out: Annotated[str, typer.Option("--output")] = "runs",
    seed: int = 0,
    every: models.Count = 1000,
    window: models.Count = 16,
    lanes: models.CountOrNone = None,
    force_resume: bool = False,
    other_hosts: bool = False,
    max_bad_share: Annotated[float, typer.Option(min=0, max=1)] = 0.001,
    distribute: str = "auto",
    shard_devices: models.CountOrNone = None,
    gradient_dtype: str | None = None,
    changes: models.Changes = None,
    as_json: models.AsJson = False,
):
    """Train by a recipe of the paper, and save a preset.

    Prints the recipe and where it differs from the paper's, and the scores of
    the validation and test splits. The same command continues a run that was
    interrupted. PyTorch needs a process for each device: `torchrun
    --nproc-per-node=8 -m keras_bridgetower train ...`.

    Args:
        recipe: Recipe of the paper, such as vqa_base.
        data: Folder of records, or its URL. May be given again.
        init: Preset to start from.
        encoders: Uni-modal encoders to start from, of images and of texts.
        out: Folder of checkpoints and presets, or its URL in an object store.
        seed: Seed of the run.
        every: Updates between checkpoints.
        window: Neighboring shards whose samples are mixed. More mix better,
            and machines that read from an object store fetch more.
        lanes: Parts of an epoch, from each of which a batch takes as many
            rows, so that machines fetch other shards. By default one for each
            machine that reads from an object store, else 1. With
            `--other-hosts` give the number of the run.
        force_resume: Resume although settings, versions or data changed.
        other_hosts: Resume with another number of processes.
        max_bad_share: Share of the training samples, and of their shards, that
            may be damaged.
        distribute: Devices, as `kbt.distribute` takes them.
        shard_devices: With `--distribute fsdp`, devices that have one copy of
            the weights together, such as those of a host. By default all.
        gradient_dtype: On PyTorch, in which gradients are sent and summed, such
            as bfloat16. Needs `--distribute data_parallel` or `fsdp`.
        changes: Override a recipe field, such as batch_size=64. May be given
            again.
    """
    if gradient_dtype and not (
        distribute in ("data_parallel", "fsdp")
        and frameworks.chosen_backend()[0] == "torch"
    ):
        raise UsageError(
            "`--gradient-dtype` needs PyTorch, and `--distribute fsdp` or "
            "data_parallel."
        )
    if shard_devices and distribute != "fsdp":
        raise UsageError("`--shard-devices` needs `--distribute fsdp`.")
    if (init is None) == (encoders is None):
        raise UsageError("Give one of `--init` and `--encoders IMAGE TEXT`.")
    if init:
        models.check_preset(init)
    bars = sys.stdout.isatty() and not as_json
    with output.progress("Loading Keras"):
        frameworks.load(context.obj, bars=bars, datasets=True, devices=False)
    from keras_bridgetower.training import recipes
    from keras_bridgetower.training import train as training

    given = context.params | {"encoders": encoders and list(encoders)}
    settings = types.SimpleNamespace(**given, output=out)
    chosen = training.with_changes(recipes.get(recipe), changes or ())
    # With `--json`, stdout has one document and nothing else.
    stream = sys.stderr if as_json else sys.stdout
    with contextlib.redirect_stdout(stream):
        preset, scores = training.run(chosen, settings)
    if as_json:
        value = {"recipe": recipe, "preset": str(preset), "scores": scores}
        output.show(True, value, (), ())


def train_reranker(
    context: typer.Context,
    pairs: pathlib.Path,
    pictures: Annotated[pathlib.Path, typer.Option()],
    preset: Annotated[str, typer.Option()],
    out: Annotated[pathlib.Path, typer.Option("--output")],
    teacher: pathlib.Path | None = None,
    index: str | None = None,
    states: pathlib.Path | None = None,
    kind: str = "float16",
    epochs: models.Count = 20,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    mine_every: Annotated[int, typer.Option(min=0)] = 0,
    seed: int = 0,
    as_json: models.AsJson = False,
):
    """Train a reranker on your own pictures, and say whether it helps.

    Also called `train reranker`. Divides the pictures into training,
    validation and test, keeps the states of both towers on disk, trains the
    fusion on lists of the nearest pictures, and prints nDCG@10 of the test
    queries before and after, with an interval. Writes a preset with a card.

    Args:
        pairs: Table of the columns image and text and, if wanted, grade: CSV,
            JSONL or Parquet.
        pictures: Folder of the pictures.
        preset: Preset to start from, with vectors.
        out: New preset folder.
        teacher: Table of the columns query, picture and score, of another
            model, to learn its scores.
        index: Index of `search`, whose pictures nearest to a query are
            candidates too, and fit none.
        states: Folder of states, for later runs; by default beside the preset.
        kind: How states are stored, such as float32, float16 or int8.
        epochs: Most passes over the pairs.
        learning_rate: That of the first step; it falls to 0.
        mine_every: Epochs after which negatives are mined anew, by the trained
            score; 0 for never.
        seed: Seed of the run.
    """
    models.check_preset(preset)
    with output.progress("Loading Keras"):
        frameworks.load(context.obj, bars=not as_json, datasets=True)
    from keras_bridgetower.apps.search import PictureSearch
    from keras_bridgetower.training import reranker

    found = reranker.read_pairs(pairs, pictures, teacher)
    if index is not None:
        query = PictureSearch(index).query
        hits = (query(x, top_k=reranker.LISTED, rerank=0) for x in found.texts)
        found = found.with_gallery(hit.path for some in hits for hit in some)
    report = reranker.train(
        *(found, preset, out, states, kind, epochs),
        learning_rate=learning_rate,
        mine_every=mine_every,
        seed=seed,
        verbose=0 if as_json else 1,
    )
    output.show_lines(as_json, report, [reranker.summary(report)])


def evaluate(
    context: typer.Context,
    preset: models.PresetArgument,
    folder: Place,
    splits: models.Splits = None,
    recipe: str | None = None,
    batch_size: models.Count = 32,
    as_json: models.AsJson = False,
):
    """Score a preset on records, by the official protocol of their task.

    Args:
        preset: Preset to score.
        splits: Split to score. May be given again. By default validation and
            test, if they exist.
        recipe: Recipe whose evaluation is used. By default the first of the
            data's task, with the image size of the preset.
        batch_size: Samples per batch.
    """
    models.check_preset(preset)
    with output.progress(f"Scoring {preset}"):
        frameworks.load(context.obj, datasets=True)
        from keras_bridgetower.training import evaluate as evaluation

        scores = evaluation.run(
            preset, folder, splits, recipe=recipe, batch_size=batch_size
        )
    rows = [
        (split, name, score)
        for split, found in scores.items()
        for name, score in (found or {"no labels": None}).items()
    ]
    value = {"preset": preset, "data": str(folder), "scores": scores}
    output.show(as_json, value, ("split", "score", "value"), rows)
