"""Imports Gradio, which builds the page, without its news from the network."""

import importlib
import importlib.util
import os

GRADIO = "gradio==6.31.0"
INSTALL = (
    'The page needs Gradio: `pip install "keras-bridgetower[demo]"`, then '
    f"`pip install --no-deps {GRADIO}`. The second line stands alone because "
    "Gradio runs with Pillow 13, but its metadata ask for an older one, which "
    "has security holes."
)
# Gradio tells its makers about each start where this is not set.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False"}


def check_gradio():
    """Refuse to go on without Gradio, before anything else is loaded.

    Raises:
        ImportError: it is not installed; says how to.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError(INSTALL)


def gradio():
    """The module `gradio`.

    Raises:
        ImportError: as `check_gradio`.
    """
    check_gradio()
    os.environ.update(QUIET)
    return importlib.import_module("gradio")
