"""The command that embeds texts and pictures."""

import pathlib
import sys
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import Asked
from keras_bridgetower.apps.cli.models import preset_option

# Numbers of a vector that a terminal shows.
SHOWN = 4
COLUMNS = ("text", "image", "numbers", "the first of them")
EMBED = Asked("embed", "BridgeTowerContrastive", ("itc",))


def embed(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", help="Text to embed. May be given again."),
    ] = None,
    images: Annotated[
        list[pathlib.Path] | None,
        typer.Option("--image", help="Picture to embed. May be given again."),
    ] = None,
    preset: preset_option(True) = EMBED.default,
    as_json: AsJson = False,
):
    """Embed texts or pictures in one space, for search.

    Prints a vector of length 1 for each `--text` or `--image`, in order. As
    many of both are embedded as pairs, if the preset has a head for pairs.
    """
    texts, images = texts or None, images or None
    if not (texts or images):
        raise UsageError("Give `--text` or `--image`, once or more.")
    if texts and images and len(texts) != len(images):
        raise UsageError(
            "`--text` and `--image` together are pairs: give as many of both. "
            f"Received: {len(texts)} texts, {len(images)} pictures"
        )
    opened = models.open_pictures(*images) if images else None
    count = len(texts or images)
    task = models.open_task(EMBED, preset, context, count)
    vectors = task.embed(images=opened, texts=texts)
    inputs = [{} for _ in vectors]
    for name, given in {"text": texts, "image": images}.items():
        for row, one in zip(inputs, given or [], strict=False):
            row[name] = str(one)
    value = {
        "preset": preset,
        "embeddings": [
            {**row, "embedding": vector.tolist()}
            for row, vector in zip(inputs, vectors, strict=True)
        ],
    }
    output.show(as_json, value, COLUMNS, _rows(value["embeddings"]))


def _rows(embeddings):
    """A row for each vector: for a pipe its numbers, which NumPy reads."""
    if not sys.stdout.isatty():
        return [[f"{x:.9g}" for x in row["embedding"]] for row in embeddings]
    return [
        (
            row.get("text"),
            row.get("image"),
            len(row["embedding"]),
            ", ".join(f"{x:.3f}" for x in row["embedding"][:SHOWN]),
        )
        for row in embeddings
    ]
