"""Checks the address and Gradio before models are loaded."""

import importlib
import importlib.util
import os
import socket


class AddressInUse(OSError):
    """The page cannot listen on a host and port."""


def free_port(host, port):
    """Return a port on which a server can listen.

    Args:
        host: str, address of this machine.
        port: int, 0 for any free one.

    Returns:
        int.

    Raises:
        AddressInUse: another program listens there, or the machine has no
            such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port that was just closed counts as free, as for servers.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except OSError as error:
        raise AddressInUse(
            f"The page cannot listen on port {port} of {host!r}: "
            f"{error.strerror or error}. Choose another one by `--port` or "
            "`--host`; `--port 0` takes any free port."
        ) from error


GRADIO = "gradio==6.31.0"
INSTALL = (
    'The page needs Gradio: `pip install "keras-bridgetower[demo]"`, then '
    f"`pip install --no-deps {GRADIO}`. The second line is separate because "
    "Gradio runs with Pillow 13, but its metadata require an older version, "
    "which has security holes."
)
# Turns off the analytics of Gradio.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False"}


def check_gradio():
    """Raise ImportError, with the cure, if Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ImportError(INSTALL)


def gradio():
    """Import `gradio` with analytics disabled, or raise ImportError."""
    check_gradio()
    os.environ.update(QUIET)
    return importlib.import_module("gradio")
