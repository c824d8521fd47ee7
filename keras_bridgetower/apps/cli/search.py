"""Commands that index pictures and find them."""

import dataclasses
import pathlib
from typing import Annotated

import typer

from keras_bridgetower.apps import search
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.presets.verbs import EMBED_IMAGES

StoreName = Annotated[
    str,
    typer.Option(
        "--store",
        help="Folder of the index (LanceDB), or qdrant:FOLDER, or the address "
        "of a Qdrant server.",
    ),
]


def index(
    context: typer.Context,
    source: pathlib.Path,
    store: StoreName,
    preset: models.Preset = None,
    fused: bool = False,
    batch_size: models.Count = 8,
    outside: bool = False,
    states: str | None = None,
    as_json: models.AsJson = False,
):
    """Index the pictures of a folder for `search query`.

    If it is interrupted, the same command continues. Pictures that are in the
    index already are not embedded again, even if they were renamed. Pictures
    that were deleted from the folder are removed from the index.

    Args:
        source: Folder of pictures, or table (.csv, .jsonl) with the column
            image, and perhaps id and text.
        preset: Preset. By default that of the index, and for a new one that
            of `embed`.
        fused: Embed each picture with its text.
        batch_size: Pictures per batch. More are faster on an accelerator.
        outside: Let a table name pictures anywhere.
        states: Store what a query needs to rerank, as float32, float16 or
            int8, so that it opens no picture.
    """
    opened, header = _open_store(store, needed=False)
    if header is None:
        preset = preset or models.DEFAULTS[EMBED_IMAGES.name]
    if preset:
        models.check_preset(preset)
    with output.progress("Indexing") as update:
        frameworks.load(context.obj)
        report = search.PictureSearch(opened, preset).index(
            source,
            vectors="fused" if fused else "image",
            batch_size=batch_size,
            outside=outside,
            progress=lambda p: update(p.done, p.total),
            states=states,
        )
    found = dataclasses.asdict(report)
    for picture in found["unreadable"]:
        output.warn(f"{picture['path']} is left out: {picture['error']}")
    counts = {"pictures": report.total}
    for name in ("embedded", "unchanged", "copied", "removed"):
        counts[name] = found[name]
    counts |= {"unreadable": len(report.unreadable), **report.passed_over}
    value = {"index": store, "store": opened.kind, **found}
    output.show(as_json, value, ("what", "count"), list(counts.items()))


def query(
    context: typer.Context,
    store: StoreName,
    text: Annotated[str | None, typer.Argument()] = None,
    image: pathlib.Path | None = None,
    top_k: models.Count = 10,
    rerank: Annotated[int | None, typer.Option(min=0)] = None,
    preset: models.Preset = None,
    as_json: models.AsJson = False,
):
    """Find indexed pictures by a text, by a picture, or by both.

    Prints the path of each, how well it matches the text (higher is better),
    and the cosine of its vector and that of the query.

    Args:
        text: What to look for.
        image: Picture to look for, alone or with the text.
        top_k: How many pictures to print.
        rerank: How many of the nearest pictures the matching head orders. By
            default 128 if that is known to improve the preset's lists.
        preset: Preset. By default that of the index.
    """
    if text is None and image is None:
        raise UsageError("Give TEXT or `--image`, or both.")
    if preset:
        models.check_preset(preset)
    opened, _ = _open_store(store)
    with output.progress("Searching"):
        frameworks.load(context.obj)
        pictures = search.PictureSearch(opened, preset)
        hits = pictures.query(text, image, top_k, rerank)
    asked = text and pictures.models.retrieval and rerank is None
    if asked and not pictures.models.reranks:
        output.note(
            "Sorted by similarity. Matching is not known to improve the lists "
            f"of {pictures.models.preset}; `--rerank 128` uses it anyway."
        )
    for hit in hits:
        if hit.problem:
            output.warn(f"{hit.path} was not ranked: {hit.problem}")
    value = {
        "index": store,
        "store": opened.kind,
        "text": text,
        "image": image,
        "hits": [dataclasses.asdict(hit) for hit in hits],
    }
    rows = [(hit.path, hit.match, hit.similarity) for hit in hits]
    output.show(as_json, value, ("picture", "match", "similarity"), rows)


def info(store: StoreName, as_json: models.AsJson = False):
    """Print the size and the model of an index."""
    opened, _ = _open_store(store)
    found = {"index": store, **search.info(opened)}
    output.show(as_json, found, ("what", "value"), list(found.items()))


def remove(
    path: pathlib.Path, store: StoreName, as_json: models.AsJson = False
):
    """Remove a picture, a folder or a table from an index.

    The files are not deleted. `search index` of their folder adds them again.

    Args:
        path: Picture, folder with its subfolders, or table.
    """
    _show_removed(store, search.remove, path, as_json)


def prune(
    store: StoreName,
    folder: Annotated[pathlib.Path | None, typer.Argument()] = None,
    as_json: models.AsJson = False,
):
    """Remove pictures from an index whose files were deleted.

    Mount all disks first: files on an unmounted disk count as deleted.

    Args:
        folder: Look at pictures below this folder only.
    """
    _show_removed(store, search.prune, folder, as_json)


def _show_removed(name, remove, path, as_json):
    """Remove pictures. Print the numbers of removed and remaining ones."""
    store, _ = _open_store(name)
    removed = remove(store, path)
    counts = {"removed": len(removed), "pictures": store.count()}
    value = {"index": name, "store": store.kind, **counts, "paths": removed}
    output.show(as_json, value, ("what", "count"), list(counts.items()))


def _open_store(name, needed=True):
    """Open a store and its header, which may be None, without Keras."""
    from keras_bridgetower.apps.search import header

    store = search.open_store(name)
    return store, header.read_header(store, needed)
