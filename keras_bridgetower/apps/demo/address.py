"""Looks whether a page can be shown at an address, before models load."""

import socket


class AddressInUse(OSError):
    """The page cannot listen there; the message says what to choose."""


def free_port(host, port):
    """A port on which a server can listen.

    Args:
        host: str, address of this machine.
        port: int, 0 for any that is free.

    Returns:
        int.

    Raises:
        AddressInUse: another program listens there, or the machine has no
            such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a port that was just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except OSError as error:
        raise AddressInUse(
            f"The page cannot listen on port {port} of {host!r}: "
            f"{error.strerror or error}. Choose another one by `--port` or "
            "`--host`; `--port 0` takes any free port."
        ) from error
