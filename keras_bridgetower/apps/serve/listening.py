"""Opens the port of the server, or says that it cannot."""

import contextlib
import socket


@contextlib.contextmanager
def listening(host, port):
    """A socket at a port that no other program listens on.

    Args:
        host: str, the address that is listened on.
        port: int.

    Raises:
        OSError: another program listens there, or the machine has no such
            address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"The server cannot listen on {host} port {port} "
            f"({error.strerror}). Choose another with `--port`."
        ) from error
    with opened:
        yield opened
