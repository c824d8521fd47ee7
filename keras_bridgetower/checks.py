"""Checks of single arguments: a name among some, an integer, a free port."""

import socket


def check_choice(name, value, allowed):
    """Refuse a value that is not in `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {list(allowed)}. "
            f"Received: {name}={value!r}"
        )


def check_count(name, value):
    """Refuse a value that is not an integer of at least 1."""
    if type(value) is not int or value < 1:
        raise ValueError(
            f"`{name}` must be an integer from 1. Received: {name}={value!r}"
        )


def bindable_port(host, port):
    """A port on which a server can listen.

    Args:
        host: str, address of this machine.
        port: int, 0 for any that is free.

    Returns:
        int.

    Raises:
        OSError: another program listens there, or the machine has no such
            address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port that was just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return probe.getsockname()[1]
