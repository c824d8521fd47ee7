"""Imports Keras and its backend without their log lines.

TensorFlow, absl and oneDNN log during import and when they first look for
devices, partly from C++ before any log level applies. So the file descriptors
of stdout and stderr are redirected meanwhile.
"""

import contextlib
import importlib
import importlib.util
import inspect
import json
import logging
import os
import pathlib
import sys
import warnings

from keras_bridgetower import startup
from keras_bridgetower.backend.names import BACKENDS
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


class BackendMissing(ImportError):
    """The chosen backend is not installed, or does not exist."""


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


def installed_backends():
    """List the backends whose packages are installed."""
    return [name for name in BACKENDS if importlib.util.find_spec(name)]


def check_backend():
    """Raise BackendMissing for a backend that Keras cannot import."""
    name, reason = chosen_backend()
    installed = installed_backends()
    if name in installed:
        return
    others = ", ".join(f"KERAS_BACKEND={other}" for other in installed)
    if name not in BACKENDS:
        raise BackendMissing(
            f"The backend of Keras must be one of {', '.join(BACKENDS)}. "
            f"Set {others or 'KERAS_BACKEND'}. Received: {name!r} ({reason})"
        )
    install = f'`pip install "keras-bridgetower[{name}]"`'
    raise BackendMissing(
        f"The backend {name} is not installed ({reason}): {install}, or set "
        f"{others or 'KERAS_BACKEND'}."
    )


def compiled_folder():
    """Return the folder of JAX's compiled programs."""
    kept = keras_home() / f"{PACKAGE}_compiled"
    return pathlib.Path(os.environ.get(JAX_CACHE) or kept)


def load(debug=False, first=(), bars=False, datasets=False):
    """Import the package with its models.

    Args:
        debug: bool, True if the frameworks may print.
        first: names of modules to import before Keras, where they are
            installed. PyTorch can crash if TensorFlow was imported before it.
        bars: bool, True if Keras may show its progress bars.
        datasets: bool, True if datasets of TensorFlow will be read, which
            also makes it look for devices.

    Returns:
        The module `keras_bridgetower`.

    Raises:
        BackendMissing: the backend of Keras is not installed.
    """
    check_backend()
    if chosen_backend()[0] == "jax" and JAX_CACHE not in os.environ:
        os.environ[JAX_CACHE] = str(compiled_folder())
        os.environ.setdefault(JAX_LEAST_SECONDS, "0")
    loud = debug or "keras_hub" in sys.modules
    with contextlib.nullcontext() if loud else _discarded_output():
        for name in first:
            if importlib.util.find_spec(name):
                importlib.import_module(name)
        keras = importlib.import_module("keras")
        for name in ("keras_hub", f"{PACKAGE}.convert", f"{PACKAGE}.tasks"):
            importlib.import_module(name)
        startup.import_own_modules()
        # Frameworks look for devices when the first array is made.
        keras.ops.zeros((1,))
        if datasets:
            importlib.import_module("tensorflow").zeros((1,))
    if not (debug or bars):
        keras.config.disable_interactive_logging()
    return importlib.import_module(PACKAGE)


@contextlib.contextmanager
def quiet(warn, debug=False):
    """Return a context in which only warnings of this package are shown.

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
        keras = sys.modules.get("keras")
        bars = keras is None or keras.config.is_interactive_logging_enabled()
        try:
            yield
        finally:
            logging.disable(before)
            keras = sys.modules.get("keras")
            if keras and bars:
                keras.config.enable_interactive_logging()


def _warned_here():
    """Return True if a module of this package called `warnings.warn`."""
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__") in (__name__, "warnings"):
        frame = frame.f_back
    name = frame.f_globals.get("__name__", "") if frame else ""
    return name.partition(".")[0] == PACKAGE


@contextlib.contextmanager
def quiet_processes(debug=False):
    """Return a context in which child processes print nothing.

    They import the frameworks again, with their log lines. This process can
    still write to `sys.stderr`.

    Args:
        debug: bool, True if they may print.
    """
    if debug:
        yield
        return
    with _stderr_of_its_own(), _discarded_output():
        yield


@contextlib.contextmanager
def _stderr_of_its_own():
    """Give `sys.stderr` a file descriptor of its own."""
    try:
        shared = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        shared = False
    if not shared:
        yield
        return
    with os.fdopen(os.dup(2), "w", buffering=1) as stream:
        with contextlib.redirect_stderr(stream):
            yield


@contextlib.contextmanager
def _discarded_output():
    """Discard what C code or child processes write to stdout and stderr."""
    with open(os.devnull, "wb") as nowhere, contextlib.ExitStack() as streams:
        for number in (1, 2):
            streams.enter_context(_redirected(number, nowhere.fileno()))
        yield


@contextlib.contextmanager
def _redirected(number, target):
    """Redirect a file descriptor to another file."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.flush()
    try:
        before = os.dup(number)
    except OSError:
        # The caller closed it.
        yield
        return
    os.dup2(target, number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.flush()
        os.dup2(before, number)
        os.close(before)
