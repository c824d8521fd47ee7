"""Read the pictures of requests: base64, or a URL of an allowed host.

URLs are fetched at public addresses only.
"""

import asyncio
import ipaddress
import socket
import urllib.parse

from keras_bridgetower.apps.serve.errors import LOG
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import URL
from keras_bridgetower.preprocessing.images import check_signature
from keras_bridgetower.preprocessing.images import decode_base64

# Longer base64 is decoded in another thread.
_QUICK = 100_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


class PictureReader:
    """Read pictures as bytes of image files.

    Checks only their signature. `Decoders` read the rest, since even a header
    may take seconds.

    Args:
        fetcher: `PictureFetcher`, or None to reject URLs.
    """

    def __init__(self, fetcher=None):
        self._fetcher = fetcher

    async def read(self, text, param):
        """Return the bytes of a picture.

        Args:
            text: str, base64, a `data:` URL, or another URL.
            param: str, the field that contains it.

        Raises:
            RequestError: not a picture, or a URL that is not allowed.
        """
        if URL.match(text[:64]):
            return _checked(await self._fetched(text, param), param)
        if len(text) < _QUICK:
            return _decoded(text, param)
        return await asyncio.to_thread(_decoded, text, param)

    async def _fetched(self, url, param):
        if self._fetcher is None:
            raise RequestError(
                400,
                f"{param}: this server does not fetch URLs. Send base64.",
                param,
            )
        return await self._fetcher.fetch(url, param)


def _decoded(text, param):
    try:
        data = decode_base64(text, "image")
    except ValueError as error:
        raise RequestError(
            400, f"{param}: a picture must be complete base64 data.", param
        ) from error
    return _checked(data, param)


def _checked(data, param):
    """Reject bytes without the signature of a picture."""
    try:
        check_signature(data, "image")
    except ValueError as error:
        raise RequestError(
            400,
            f"{param}: a picture must be a readable file, one of "
            f"{', '.join(FORMATS)}. Received: {len(data)} bytes",
            param,
        ) from error
    return data


def is_public(address):
    """Return True if an IP address, a str, is on the public network."""
    address = ipaddress.ip_address(address)
    return all(
        one.is_global and not one.is_multicast
        for one in (address, *_inner(address))
    )


def _inner(address):
    """Return the IPv4 addresses embedded in an IPv6 address."""
    if address.version == 4:
        return []
    found = [address.ipv4_mapped, address.sixtofour]
    found += address.teredo or []
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


class PictureFetcher:
    """Fetch pictures, with limits on hosts, addresses, size and time.

    Redirects are not followed. It connects to the very address that it has
    checked, so that a name cannot change its address in between.

    Args:
        limits: `Limits`.
        is_allowed: callable that takes an IP address and returns True if
            connections to it are allowed.
        ports: dict from scheme to the allowed port.
    """

    def __init__(self, limits, is_allowed=is_public, ports=None):
        self._limits = limits
        self._is_allowed = is_allowed
        self._ports = ports or _PORTS

    async def fetch(self, url, param):
        """Return the bytes at a URL.

        Args:
            url: str.
            param: str, the field that contains it.

        Raises:
            RequestError: a disallowed host, a private address, a redirect,
                too many bytes, or no answer in time.
        """
        self._check(url, param)
        try:
            async with asyncio.timeout(self._limits.picture_seconds):
                return await self._read(url, param)
        except RequestError:
            raise
        except TimeoutError as error:
            raise RequestError(
                400,
                f"{param}: the picture's host did not send it within "
                f"{self._limits.picture_seconds} seconds.",
                param,
            ) from error
        # Clients raise many types, and messages may contain addresses.
        except Exception as error:
            LOG.info("A picture could not be fetched", exc_info=error)
            raise RequestError(
                400, f"{param}: the picture could not be fetched.", param
            ) from error

    def _check(self, url, param):
        """Reject a URL by its scheme, host, port or user name."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port or self._ports.get(parts.scheme)
        except ValueError:
            raise RequestError(
                400, f"{param}: this is not a valid URL.", param
            ) from None
        if port is None or port != self._ports.get(parts.scheme):
            raise RequestError(
                400,
                f"{param}: a picture's URL must begin with https:// or "
                "http://, without a port of its own.",
                param,
            )
        # `hostname` is in lower case.
        known = parts.hostname in map(str.lower, self._limits.picture_hosts)
        if not known or parts.username is not None:
            raise RequestError(
                400,
                f"{param}: pictures are fetched from these hosts only: "
                f"{', '.join(self._limits.picture_hosts)}. Send base64.",
                param,
            )

    async def _read(self, url, param):
        import aiohttp

        # The connector does not resolve numeric addresses.
        host = urllib.parse.urlsplit(url).hostname
        connector = aiohttp.TCPConnector(
            resolver=_resolver(self._is_allowed), use_dns_cache=False
        )
        if _is_address(host) and not self._is_allowed(host):
            raise OSError("an address that is not public")
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise RequestError(
                    400,
                    f"{param}: the picture's host answered with status "
                    f"{answer.status}. Redirects are not followed.",
                    param,
                )
            data = bytearray()
            async for part in answer.content.iter_chunked(65536):
                data += part
                if len(data) > self._limits.picture_bytes:
                    raise RequestError(
                        400,
                        f"{param}: a fetched picture must have at most "
                        f"{self._limits.picture_bytes} bytes.",
                        param,
                    )
            return bytes(data)


def _is_address(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolver(is_allowed):
    """Build a resolver of names that rejects addresses that are not public."""
    from aiohttp.abc import AbstractResolver

    class PublicAddresses(AbstractResolver):
        """Resolve names; reject those with any private address."""

        async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, family=family
            )
            if not all(is_allowed(where[0]) for *_, where in found):
                raise OSError("an address that is not public")
            return [
                {
                    "hostname": host,
                    "host": where[0],
                    "port": port,
                    "family": kind,
                    "proto": proto,
                    "flags": socket.AI_NUMERICHOST,
                }
                for kind, _, proto, _, where in found
            ]

        async def close(self):
            """Do nothing: there is nothing to close."""

    return PublicAddresses()
