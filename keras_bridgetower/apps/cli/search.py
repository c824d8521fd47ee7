"""Commands that index pictures and find them."""

import dataclasses
import pathlib

import typer

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

HEADS = EMBED_IMAGES.heads
DEFAULT = DEFAULTS[EMBED_IMAGES.name]
StoreName = option(
    str,
    "Folder of the index (LanceDB), or qdrant:FOLDER, or the address of a "
    "Qdrant server.",
    "--store",
    metavar="DIR",
    show_default=False,
)


def index(
    context: typer.Context,
    source: argument(
        pathlib.Path,
        "Folder of pictures, or table (.csv, .jsonl) with the column image, "
        "and perhaps id and text.",
        metavar="FOLDER",
        show_default=False,
    ),
    store: StoreName,
    preset: preset_option(
        f"that of the index, and {DEFAULT} for a new one"
    ) = None,
    fused: option(bool, "Embed each picture with its text.") = False,
    batch_size: models.batch_option("Pictures") = 32,
    outside: option(bool, "Let a table name pictures anywhere.") = False,
    as_json: AsJson = False,
):
    """Index the pictures of a folder for `search query`.

    If it is interrupted, the same command continues. Pictures that are in the
    index already are not embedded again, even if they were renamed. Pictures
    that were deleted from the folder are removed from the index.
    """
    opened, header = _opened(store)
    if preset or header is None:
        models.check_preset(preset or DEFAULT, HEADS)
        preset = preset or DEFAULT
    with output.progress("Indexing") as update:
        frameworks.load(context.obj)
        from keras_bridgetower.apps.search import PictureSearch

        report = PictureSearch(opened, preset).index(
            source,
            vectors="fused" if fused else "image",
            batch_size=batch_size,
            outside=outside,
            progress=lambda p: update(p.done, p.total),
        )
    found = dataclasses.asdict(report)
    for picture in found["unreadable"]:
        output.warn(f"{picture['path']} is left out: {picture['error']}")
    counts = {
        "pictures": report.total,
        "embedded": report.embedded,
        "unchanged": report.unchanged,
        "copied": report.copied,
        "removed": report.removed,
        "unreadable": len(report.unreadable),
        **report.passed_over,
    }
    value = {"index": store, "store": opened.kind, **found}
    output.show(as_json, value, ("what", "count"), list(counts.items()))


def query(
    context: typer.Context,
    store: StoreName,
    text: argument(str | None, "What to look for.", show_default=False) = None,
    image: option(
        pathlib.Path | None, "Picture to look for, alone or with the text."
    ) = None,
    top_k: option(int, "How many pictures to print.", min=1) = 10,
    rerank: option(
        int, "How many of the nearest pictures the matching head orders.", min=0
    ) = 128,
    preset: preset_option("that of the index") = None,
    as_json: AsJson = False,
):
    """Find indexed pictures by a text, by a picture, or by both.

    Prints the path of each, how well it matches the text (higher is better),
    and the cosine of its vector and that of the query.
    """
    if text is None and image is None:
        raise UsageError("Give TEXT or `--image`, or both.")
    from keras_bridgetower.apps.search.header import check_whole

    opened, header = _opened(store, needed=True)
    check_whole(opened, header)
    if preset:
        models.check_preset(preset, HEADS)
    picture = models.open_pictures(image)[0] if image else None
    with output.status("Searching"):
        frameworks.load(context.obj)
        from keras_bridgetower.apps.search import PictureSearch

        search = PictureSearch(opened, preset)
        hits = search.query(text, picture, top_k, rerank)
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


def info(store: StoreName, as_json: AsJson = False):
    """Print the size and the model of an index."""
    from keras_bridgetower.apps.search import info as about

    opened, _ = _opened(store, needed=True)
    found = {"index": store, **about(opened)}
    output.show(as_json, found, ("what", "value"), list(found.items()))


def remove(
    path: argument(
        pathlib.Path,
        "Picture, folder with its subfolders, or table.",
        metavar="PATH",
        show_default=False,
    ),
    store: StoreName,
    as_json: AsJson = False,
):
    """Remove a picture, a folder or a table from an index.

    The files are not deleted. `search index` of their folder adds them again.
    """
    from keras_bridgetower.apps.search import remove

    opened, _ = _opened(store, needed=True)
    _show_removed(store, opened, remove(opened, path), as_json)


def prune(
    store: StoreName,
    folder: argument(
        pathlib.Path | None,
        "Look at pictures below this folder only.",
        metavar="[FOLDER]",
        show_default=False,
    ) = None,
    as_json: AsJson = False,
):
    """Remove pictures from an index whose files were deleted.

    Mount all disks first: files on an unmounted disk count as deleted.
    """
    from keras_bridgetower.apps.search import prune

    opened, _ = _opened(store, needed=True)
    _show_removed(store, opened, prune(opened, folder), as_json)


def _show_removed(name, store, removed, as_json):
    """Print how many pictures were removed and how many are left."""
    counts = {"removed": len(removed), "pictures": store.count()}
    value = {"index": name, "store": store.kind, **counts, "paths": removed}
    output.show(as_json, value, ("what", "count"), list(counts.items()))


def _opened(name, needed=False):
    """Open a store and its header, without Keras.

    Args:
        name: str, as `open_store` takes it.
        needed: bool, True if it must be an index.

    Raises:
        ImportError: the package of the store is not installed.
        ValueError: no index, or one that cannot be used.
    """
    from keras_bridgetower.apps.search.header import needed_header
    from keras_bridgetower.apps.search.stores.opened import open_store

    store = open_store(name)
    header = needed_header(store) if needed else store.header()
    return store, header
