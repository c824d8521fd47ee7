"""The old place of `apps.search.adapters`."""

raise ImportError(
    "`keras_bridgetower.integrations` is now "
    "`keras_bridgetower.apps.search.adapters`. Import the module of the same "
    "name from there."
)
