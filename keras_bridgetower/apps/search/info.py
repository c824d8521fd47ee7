"""What stands in an index, without its model."""

from keras_bridgetower.apps.search.header import needed_header
from keras_bridgetower.apps.search.stores.opened import opened


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
