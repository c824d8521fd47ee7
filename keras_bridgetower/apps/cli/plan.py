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
    *("weights", "memory", "GB a device", "fits"),
    *("GFLOP a row", "GB sent", "hours", "cost"),
)


def plan(
    context: typer.Context,
    recipe: str,
    devices: Annotated[str, typer.Option(metavar="KIND:NUMBER")],
    rows: float | None = None,
    row_bytes: float | None = None,
    utilization: float = 0.4,
    price: float | None = None,
    dtype: str = "mixed_bfloat16",
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
        dtype: Dtype policy of the model.
        changes: Override a recipe field, such as batch_size=64. May be given
            again.
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
            dtype=dtype,
        )
    rate = found.rows_per_second
    facts = {
        "recipe": recipe,
        "devices": devices,
        "parameters": found.parameters,
        "steps": found.steps,
        "passes": found.passes,
        "rows_per_second": rate,
        "bytes_per_second": row_bytes and rate * row_bytes,
    }
    if as_json:
        ways = [
            dataclasses.asdict(way) | {"fits": found.fits(way)}
            for way in found.ways
        ]
        output.show(True, facts | {"ways": ways}, (), ())
    else:
        output.show(
            *(False, None, COLUMNS),
            [_row(found, way) for way in found.ways],
        )
        output.show_lines(False, None, _lines(facts))
    for way in found.ways:
        if not found.fits(way):
            output.warn(_advice(found, way))


def _row(found, way):
    return (
        *(way.kind, "computed again" if way.checkpoint else "kept"),
        *(f"{way.needed / GB:.1f}", found.fits(way)),
        *(f"{way.operations / 1e9:.0f}", f"{way.sent / GB:.2f}"),
        f"{way.hours:.1f}",
        None if way.cost is None else f"{way.cost:.0f}",
    )


def _lines(facts):
    yield f"{facts['parameters']:,} parameters, {facts['steps']:,} updates"
    if facts["passes"]:
        yield f"each row is seen {facts['passes']:.2f} times"
    yield f"{facts['rows_per_second']:,.0f} rows a second, memory kept"
    if facts["bytes_per_second"]:
        yield f"{facts['bytes_per_second'] / 1e6:,.1f} MB a second from storage"


def _advice(found, way):
    parts = way.accumulation
    what = "computed again" if way.checkpoint else "kept"
    fix = (
        f"add --set accumulation={parts}"
        if parts
        else "not even single rows do"
    )
    return (
        f"{way.kind}, activations {what}: {way.needed / GB:.0f} GB do not fit "
        f"{found.memory / GB:.0f} GB of a device; {fix}"
    )
