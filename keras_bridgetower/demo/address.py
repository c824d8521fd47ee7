"""Looks whether a page can be shown at an address, before models load."""

from keras_bridgetower.checks import bindable_port


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
    try:
        return bindable_port(host, port)
    except OSError as error:
        raise AddressInUse(
            f"The page cannot listen on port {port} of {host!r}: "
            f"{error.strerror or error}. Choose another one by `--port` or "
            "`--host`; `--port 0` takes any free port."
        ) from error
