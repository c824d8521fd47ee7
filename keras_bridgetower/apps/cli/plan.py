"""`keras-bridgetower plan`, which counts a run before it starts."""

import dataclasses
import os
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError

GB = 1e9
COLUMNS = (
    *("kind", "activations", "GB a device", "fits", "GFLOP a row"),
    *("GB sent", "rows a second", "MB read", "hours", "cost"),
)


def plan(
    context: typer.Context,
    recipe: str,
    devices: Annotated[str, typer.Option(metavar="KIND:NUMBER")],
    rows: Annotated[float | None, typer.Option(min=1, max=1e15)] = None,
    row_bytes: Annotated[float | None, typer.Option(min=1)] = None,
    utilization: float = 0.4,
    price: float | None = None,
    changes: models.Changes = None,
    as_json: models.AsJson = False,
):
    """Print what a run needs on some devices, before it starts.

    Counts steps, operations, memory, time and cost of a recipe, with whole
    and with split weights, and with activations that are kept or computed
    again. Nothing is computed, but PyTorch must be installed. Warns about what
    does not fit.

    Args:
        recipe: Recipe of the paper, such as pretrain_base.
        devices: Kind and number of devices, such as h100:8 or v5e:256.
        rows: Samples of the data set, such as 4e6.
        row_bytes: Bytes of a sample, to know what storage must deliver.
        utilization: Share of the operations of a device that is reached.
        price: Price of a device for an hour.
        changes: Override a recipe field, such as dtype=mixed_bfloat16. May be
            given again.
    """
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
        found = training.plan(
            *(chosen, kind, int(number), None if rows is None else int(rows)),
            utilization=utilization,
            price=price,
        )
    facts = {
        "recipe": recipe,
        "devices": devices,
        "parameters": found.parameters,
        "steps": found.steps,
        "passes": found.passes,
    }
    if as_json:
        ways = [
            dataclasses.asdict(way)
            | {
                "fits": found.fits(way),
                "bytes_per_second": row_bytes
                and row_bytes * way.rows_per_second,
            }
            for way in found.ways
        ]
        output.show(True, facts | {"ways": ways}, (), ())
    else:
        output.show(
            *(False, None, COLUMNS),
            [_row(found, way, row_bytes) for way in found.ways],
        )
        output.show_lines(False, None, _lines(facts))
    for way in found.ways:
        if not found.fits(way):
            output.warn(_advice(found, way))


def _row(found, way, row_bytes):
    rate = way.rows_per_second
    return (
        *(way.kind, "computed again" if way.checkpoint else "kept"),
        *(f"{way.needed / GB:.1f}", found.fits(way)),
        *(f"{way.operations / 1e9:.0f}", f"{way.sent / GB:.2f}", f"{rate:.0f}"),
        None if row_bytes is None else f"{rate * row_bytes / 1e6:.1f}",
        f"{way.hours:.1f}",
        None if way.cost is None else f"{way.cost:.0f}",
    )


def _lines(facts):
    yield f"{facts['parameters']:,} parameters, {facts['steps']:,} updates"
    if facts["passes"]:
        yield f"each row is seen {facts['passes']:.2f} times"


def _advice(found, way):
    parts = way.accumulation
    what = "computed again" if way.checkpoint else "kept"
    fix = (
        f"add --set accumulation={parts}" if parts else "not even one row fits"
    )
    return (
        f"{way.kind}, activations {what}: {way.needed / GB:.0f} GB do not fit "
        f"{found.memory / GB:.0f} GB of a device; {fix}"
    )
