"""Shared steps of both engines before they serve.

Check the packages and the port, set the environment of the processes that are
started, and load presets in them.
"""

import contextlib
import importlib.util
import os
import signal
import socket

from keras_bridgetower import startup

# Folder in which processes share metrics. `prometheus_client` reads the
# variable when it is imported.
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# Makes processes import Keras only when they load presets, see `startup`; a
# process that only answers HTTP never does.
IMPORTS_LATE = {"KERAS_BRIDGETOWER_SERVER": "1"}
# Modules of the packages of each extra.
_EXTRAS = {
    "serve": (
        *("uvicorn", "fastapi", "fastapi_offline", "aiohttp"),
        *("prometheus_client", "pydantic"),
    ),
    "ray": ("ray",),
}


@contextlib.contextmanager
def environment(values):
    """Set environment variables in a context, unless the user has set them.

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


def listening(host, port):
    """Open a listening socket.

    Args:
        host: str, the address to listen on.
        port: int.

    Raises:
        OSError: the port is in use, or the machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"The server cannot listen on {host} port {port} "
            f"({error.strerror}). Choose another with `--port`."
        ) from error


@contextlib.contextmanager
def same_signals():
    """Restore all signal handlers at the end."""
    numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not signal.getsignal(number):
                signal.signal(number, handler)


def check_installed(*extras):
    """Raise an ImportError that names extras whose packages are missing."""
    missing = [
        name
        for extra in extras
        for name in _EXTRAS[extra]
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"The server needs the packages {', '.join(missing)}: "
            f"pip install 'keras-bridgetower[{','.join(extras)}]'"
        )


def import_package():
    """Import the modules that register tasks, presets and checkpoints."""
    from keras_bridgetower import convert  # noqa: F401
    from keras_bridgetower import tasks  # noqa: F401

    startup.import_own_modules()


def opened_preset(preset, limits, tokens=None, store=None):
    """Load a preset and warm it up.

    Args:
        preset, tokens: as in `ServedPreset`.
        limits: `Limits`.
        store: str, the index that these models search, or None.

    Returns:
        Pair of `ServedPreset`, and `ServedIndex` or None.

    Raises:
        ValueError: the preset or the index cannot be served.
    """
    from keras_bridgetower.apps.serve.models import ServedIndex
    from keras_bridgetower.apps.serve.models import ServedPreset

    served = ServedPreset(preset, tokens)
    served.warm_up(limits.batch_size)
    return served, None if store is None else ServedIndex(store, served)
