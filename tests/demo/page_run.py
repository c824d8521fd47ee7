"""Runs two pages in one process until SIGINT, and prints their addresses.

First one of a single preset that other machines may visit, then the one of
the command `keras-bridgetower demo`. Who asks another machine is told on
stderr.
"""

import sys

# PyTorch can crash if TensorFlow was imported before it.
import torch  # noqa: F401
import without_preset_packages  # noqa: F401


def watch(event, arguments):
    """Refuse connections to other machines."""
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = arguments[1][0]
    if host not in ("::1", "localhost") and not host.startswith("127."):
        print(f"asked the network for {host}", file=sys.stderr, flush=True)
        raise OSError("no network here")


sys.addaudithook(watch)

from keras_bridgetower.apps.cli import main  # noqa: E402
from keras_bridgetower.apps.demo.page import serving  # noqa: E402

ONE = ("bridgetower_tiny_easy_mlm",)

with serving(ONE, "0.0.0.0", 0) as other:
    print(other, flush=True)
    code = main.main(["demo", "--port", "0"])
sys.exit(code)
