"""The old place of `apps.search`, which is also `keras_bridgetower.search`."""

raise ImportError(
    "The module `keras_bridgetower.search` is now "
    "`keras_bridgetower.apps.search`. Import from there, or use "
    "`keras_bridgetower.search.PictureSearch` and its like as attributes."
)
