"""What an index says of itself: its model, its store, whether it is whole."""

from keras_bridgetower.apps.search.stores.opened import opened

FORMAT = 1
# What the code reads of a header, and the types that it may have.
_FIELDS = {
    "preset": (str, type(None)),
    "vectors": str,
    "sum": str,
    "width": int,
    "whole": bool,
}


def new_header(store, models, vectors):
    """The header of an index that holds nothing yet.

    Args:
        store: `Store`.
        models: `SearchModels`.
        vectors: str, see `SearchModels.identity`.

    Returns:
        dict of plain values.
    """
    return {
        "format": FORMAT,
        "store": store.kind,
        "preset": models.preset,
        "dtype": models.dtype,
        **models.identity(vectors),
        # Whether a run of `index` has ever ended.
        "whole": False,
    }


def needed_header(store):
    """The header of an index that must be there.

    Args:
        store: `Store`.

    Returns:
        dict.

    Raises:
        ValueError: there is no index, or as `read_header`.
    """
    header = read_header(store)
    if header is None:
        raise ValueError(
            "`store` must hold an index. Make it first, by `index` of a folder "
            f"of pictures. Received: {_named(store)}, which holds none"
        )
    return header


def read_header(store):
    """Read the header of an index.

    Args:
        store: `Store`.

    Returns:
        dict, or None where there is no index yet.

    Raises:
        ValueError: an index of another format, or a damaged header.
    """
    header = store.header()
    if header is None:
        return None
    if header.get("format") != FORMAT:
        raise ValueError(
            f"`store` must hold an index of format {FORMAT}. Index the "
            f"pictures again into another store. Received: {_named(store)} of "
            f"format {header.get('format')!r}"
        )
    wrong = [
        name
        for name, types in _FIELDS.items()
        if name not in header or not isinstance(header[name], types)
    ]
    if wrong:
        raise ValueError(
            "`store` must have a complete header. It is damaged: delete the "
            f"store and index again. Received: {_named(store)}, whose header "
            f"has no valid {', '.join(wrong)}"
        )
    return header


def check_model(store, header, models):
    """Refuse an index whose vectors another model has made.

    Args:
        store: `Store`.
        header: dict, its header.
        models: `SearchModels`.

    Raises:
        ValueError: it differs in weights, or in how pictures are read.
    """
    now = models.identity(header["vectors"])
    # Older indexes say less of how pictures were read.
    other = {k: (header[k], v) for k, v in now.items() if header.get(k, v) != v}
    if other:
        opened = f"the preset {header['preset']!r}"
        if "dtype" in header:
            opened += f" and dtype={header['dtype']!r}"
        raise ValueError(
            "`store` must be an index of the same model: vectors of two "
            f"models cannot be compared. Open it with {opened}, or index the "
            f"pictures again into another store. Received: {_named(store)}, in "
            f"which differ (index, now): {other}"
        )


def check_whole(store, header):
    """Refuse to search an index whose first run has not ended."""
    if not header["whole"]:
        raise ValueError(
            "`store` must be a whole index. Run `index` of its pictures "
            "again: it goes on where it was interrupted. Received: "
            f"{_named(store)}, which holds {store.count()} pictures so far"
        )


def _named(store):
    return f"store={store.place!r}"


def info(store):
    """What an index holds; no model is opened.

    Args:
        store: as `PictureSearch`.

    Returns:
        dict: `"store"`, `"preset"`, `"dtype"`, `"sum"` of the model's weights,
        `"image_mode"`, `"image_size"` and others on how pictures and texts
        were read, `"vectors"` (`"image"` or `"fused"`),
        `"width"` of a vector, `"whole"` (whether a run of `index` has ended),
        `"pictures"`, their number, and `"ann"`, whether there is an ANN
        structure.

    Raises:
        ValueError: there is no index.

    Example:

    ```python
    info("photos.index")["pictures"]
    ```
    """
    with opened(store) as store:
        header = dict(needed_header(store))
        del header["format"]
        return {
            **header,
            "pictures": store.count(),
            "ann": store.has_ann(),
        }
