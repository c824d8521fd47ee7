"""Imports Keras and its backend without their log lines.

TensorFlow, absl and oneDNN log from C++ before any log level applies. So the
file descriptors of stdout and stderr are redirected meanwhile.
"""

import contextlib
import importlib.util
import inspect
import json
import logging
import os
import pathlib
import sys
import warnings

from keras_bridgetower import startup
from keras_bridgetower.checks import BACKENDS
from keras_bridgetower.files import keras_home

# Set unless the user has set them. Frameworks read them during import.
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "GRPC_VERBOSITY": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
}
PACKAGE = __name__.partition(".")[0]
# JAX's cache of compiled programs, unless the user has set it. Without it,
# `ask` spends most of its time compiling.
JAX_CACHE = "JAX_COMPILATION_CACHE_DIR"
JAX_LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def chosen_backend():
    """Return the name of the backend that Keras will use, and the reason."""
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named, f"KERAS_BACKEND={named}"
    file = keras_home() / "keras.json"
    try:
        named = json.loads(file.read_text())["backend"]
        return str(named), f"{file}; KERAS_BACKEND is not set"
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "Keras' default; KERAS_BACKEND is not set"


def compiled_folder():
    """Return the folder of JAX's compiled programs."""
    kept = keras_home() / f"{PACKAGE}_compiled"
    return pathlib.Path(os.environ.get(JAX_CACHE) or kept)


def load(debug=False, first=None, bars=False, datasets=False, devices=True):
    """Import the package with its models.

    Args:
        debug: bool, True if the frameworks may print.
        first: str, a module to import before Keras, if it is installed.
            PyTorch can crash if TensorFlow was imported before it.
        bars: bool, True if Keras may show its progress bars.
        datasets: bool, True if datasets of TensorFlow will be read, which
            also makes it look for devices.
        devices: bool, False if processes must be connected, or a process must
            choose its device, before the first array.

    Raises:
        ImportError: the backend of Keras is not installed.
    """
    name, reason = chosen_backend()
    if name not in BACKENDS or not importlib.util.find_spec(name):
        raise ImportError(
            f"The backend {name} is not installed ({reason}). Set KERAS_BACKEND"
            f" to one of {', '.join(BACKENDS)} that is, or install it: each is "
            "an extra of this package, in a clone `pip install '.[torch]'`."
        )
    if name == "jax" and JAX_CACHE not in os.environ:
        os.environ[JAX_CACHE] = str(compiled_folder())
        os.environ.setdefault(JAX_LEAST_SECONDS, "0")
    with silenced(debug or "keras_hub" in sys.modules):
        if first and importlib.util.find_spec(first):
            importlib.import_module(first)
        keras = importlib.import_module("keras")
        for name in ("keras_hub", f"{PACKAGE}.convert", f"{PACKAGE}.tasks"):
            importlib.import_module(name)
        startup.import_own_modules()
        if devices:
            # Frameworks look for devices when the first array is made.
            keras.ops.zeros((1,))
        if datasets:
            importlib.import_module("tensorflow").zeros((1,))
    if not (debug or bars):
        keras.config.disable_interactive_logging()


@contextlib.contextmanager
def quiet(warn, debug=False):
    """Show only warnings of this package, in a context.

    Args:
        warn: callable of the text of a warning.
        debug: bool, True to show everything as Python does.
    """
    if debug:
        yield
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *args, **kwargs: (
            warn(str(message)) if _warned_here() else None
        )
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
            if keras := sys.modules.get("keras"):
                keras.config.enable_interactive_logging()


def _warned_here():
    """Return True if a module of this package called `warnings.warn`."""
    frame = inspect.currentframe()
    while frame.f_globals.get("__name__") in (__name__, "warnings"):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE


@contextlib.contextmanager
def silenced(debug=False):
    """Discard what C code and child processes write to stdout and stderr.

    This process can still write to `sys.stderr`.

    Args:
        debug: bool, True to discard nothing.
    """
    if debug:
        yield
        return
    sys.stdout.flush()
    out, err, stream = os.dup(1), os.dup(2), sys.stderr
    with open(os.devnull, "wb") as nowhere, os.fdopen(err, "w") as terminal:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        if stream is sys.__stderr__:
            sys.stderr = terminal
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr = stream
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
