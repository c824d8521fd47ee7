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


def new_header(store, models, vectors):
    """Build the header of an empty index.

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
        # True once a run of `index` has finished.
        "whole": False,
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
            "`store` must have an index. Make one first, with `index` and a "
            f"folder of pictures. Received: {_named(store)}, without an index"
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
            f"`store` must have an index of format {FORMAT}. Index the "
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
            "`store` must be an index of the same model: vectors of two "
            f"models cannot be compared. Open it with {opened}, or index the "
            f"pictures again into another store. Received: {_named(store)}, "
            f"differing in (index, now): {other}"
        )


def check_whole(store, header):
    """Check that the first run of an index has finished."""
    if not header["whole"]:
        raise ValueError(
            "`store` must be a complete index. Run `index` with its pictures "
            "again: it resumes where it was interrupted. Received: "
            f"{_named(store)}, which has {store.count()} pictures so far"
        )


def _named(store):
    return f"store={store.place!r}"


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
        header = dict(needed_header(store))
        del header["format"]
        return {
            **header,
            "pictures": store.count(),
            "ann": store.has_ann(),
        }
