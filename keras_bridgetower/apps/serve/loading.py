"""Loads what a process of the server asks: the package, presets, an index.

Their modules import Keras. A process that only answers HTTP does without.
"""

from keras_bridgetower import startup


def import_package():
    """Import what registers presets and checkpoints, see `startup`."""
    from keras_bridgetower import convert  # noqa: F401
    from keras_bridgetower import tasks  # noqa: F401

    startup.import_own_modules()


def opened_preset(preset, limits, tokens=None, store=None):
    """A preset that is loaded and warm.

    Args:
        preset, tokens: as `ServedPreset`.
        limits: `Limits`.
        store: str, the index that is searched by these models, or None.

    Returns:
        Pair of `ServedPreset`, and `ServedIndex` or None.

    Raises:
        ValueError: a preset or an index that cannot be served.
    """
    from keras_bridgetower.apps.serve.index import ServedIndex
    from keras_bridgetower.apps.serve.models import ServedPreset

    served = ServedPreset(preset, tokens)
    served.warm_up(limits.batch_size)
    return served, None if store is None else ServedIndex(store, served)
