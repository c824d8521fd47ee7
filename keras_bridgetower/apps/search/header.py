"""Write, read and check the header of an index: model, store, completeness."""

from keras_bridgetower.apps.search.stores.opened import opened

FORMAT = 1
# Fields of a header that are read, and their types.
_FIELDS = {
    "preset": (str, type(None)),
    "vectors": str,
    "sum": str,
    "width": int,
    "whole": bool,
}


def needed_header(store):
    """Read the header of an index that must exist.

    Args:
        store: `Store`.

    Returns:
        dict.

    Raises:
        ValueError: there is no index, or `read_header` fails.
    """
    header = read_header(store)
    if header is None:
        raise ValueError(
            "`store` must have an index. Make one first, with `index`. "
            f"Received: store={store.place!r}, without an index"
        )
    return header


def read_header(store):
    """Read the header of an index.

    Args:
        store: `Store`.

    Returns:
        dict, or None if there is no index yet.

    Raises:
        ValueError: the index has another format, or a damaged header.
    """
    header = store.header()
    if header is None:
        return None
    if header.get("format") != FORMAT:
        raise ValueError(
            f"`store` must have an index of format {FORMAT}. Index again into "
            f"another store. Received: store={store.place!r} of format "
            f"{header.get('format')!r}"
        )
    wrong = [
        name
        for name, types in _FIELDS.items()
        if not isinstance(header.get(name, ...), types)
    ]
    if wrong:
        raise ValueError(
            "`store` must have a complete header. Delete it and index again. "
            f"Received: store={store.place!r} without valid {', '.join(wrong)}"
        )
    return header


def check_model(store, header, models):
    """Check that an index was made by the same models.

    Args:
        store: `Store`.
        header: dict, its header.
        models: `SearchModels`.

    Raises:
        ValueError: the weights or the preprocessing of pictures differ.
    """
    now = models.identity(header["vectors"])
    # Older indexes have fewer fields about preprocessing.
    other = {k: (header[k], v) for k, v in now.items() if header.get(k, v) != v}
    if other:
        opened = f"the preset {header['preset']!r}"
        if "dtype" in header:
            opened += f" and dtype={header['dtype']!r}"
        raise ValueError(
            "`store` must be an index of the same model. Open it with "
            f"{opened}, or index again into another store. Received: "
            f"store={store.place!r}, differing in (index, now): {other}"
        )


def check_whole(store, header):
    """Check that the first run of an index has finished."""
    if not header["whole"]:
        raise ValueError(
            "`store` must be a complete index. Run `index` with its pictures "
            "again: it resumes where it was interrupted. Received: "
            f"store={store.place!r}, which has {store.count()} pictures so far"
        )


def info(store):
    """Describe an index, without opening its models.

    Args:
        store: as in `PictureSearch`.

    Returns:
        dict: `"store"`, `"preset"`, `"dtype"`, `"sum"` of the model's weights,
        `"image_mode"`, `"image_size"` and other preprocessing of pictures and
        texts, `"vectors"` (`"image"` or `"fused"`), `"width"` of a vector,
        `"whole"` (True once a run of `index` has finished), `"pictures"`,
        their number, and `"ann"`, True if there is an ANN structure.

    Raises:
        ValueError: there is no index.

    Example:

    ```python
    info("photos.index")["pictures"]
    ```
    """
    with opened(store) as store:
        header = needed_header(store)
        facts = {"pictures": store.count(), "ann": store.has_ann()}
        return {k: v for k, v in header.items() if k != "format"} | facts
