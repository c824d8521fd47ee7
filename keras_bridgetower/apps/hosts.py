"""Host names and addresses: which are given, local, allowed or free."""

import ipaddress
import re
import socket

# A name or an address, and perhaps a port.
_HOST = re.compile(r"(?:\[([\da-f:.]+)\]|([^\[\]:@/]+?)\.?)(?::\d*)?")


def is_loopback(host):
    """Return True if only programs on this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unknown_host(headers, names):
    """Return the first `Host` header that names no allowed host, or None.

    DNS rebinding points a name of the attacker to this machine. So a request
    must name an IP address, `localhost`, or one of the allowed names.

    Args:
        headers: list of pairs of bytes, as in an ASGI scope.
        names: iterable of str, the allowed host names.
    """
    for name, value in headers:
        host = value.decode("latin-1")
        if name == b"host" and not _is_known(host, names):
            return host
    return None


def _is_known(header, names):
    found = _HOST.fullmatch(header.lower())
    if found is None:
        return False
    address, name = found.groups()
    if name in ("localhost", *(known.lower() for known in names)):
        return True
    try:
        return ipaddress.ip_address(address or name) is not None
    except ValueError:
        return False


def listening(host, port):
    """Open a listening socket.

    Args:
        host: str, the address to listen on.
        port: int, 0 for any free one.

    Raises:
        OSError: the port is in use, or the machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
