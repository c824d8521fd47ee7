"""Environment variables for processes that are started."""

import contextlib
import os

# Names a folder in which several processes add up their counts.
# `prometheus_client` reads it when it is imported.
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# Processes with it import Keras when they need it, see `startup`: those
# that load presets do, and one that only answers HTTP never does.
IMPORTS_LATE = {"KERAS_BRIDGETOWER_SERVER": "1"}


@contextlib.contextmanager
def environment(values):
    """A context with variables, where the user has set none.

    Args:
        values: dict of str to str.
    """
    new = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
