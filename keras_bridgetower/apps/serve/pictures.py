"""Pictures of a request: base64 or an allowed URL to bytes."""

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

# Longer base64 is decoded by another thread, while other requests go on.
_QUICK = 100_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


class PictureReader:
    """Makes bytes of image files out of what clients send.

    Only their signature is checked here. `Decoders` read the rest, since a
    head alone may take seconds.

    Args:
        fetcher: `PictureFetcher`, or None where URLs are refused.
    """

    def __init__(self, fetcher=None):
        self._fetcher = fetcher

    async def read(self, text, param):
        """The bytes of a picture.

        Args:
            text: str, base64, a `data:` URL with it, or another URL.
            param: str, the field that held it.

        Raises:
            RequestError: no picture, or a URL that may not be fetched.
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
                f"{param}: pictures are not fetched by URL here. Send base64.",
                param,
            )
        return await self._fetcher.fetch(url, param)


def _decoded(text, param):
    try:
        data = decode_base64(text, "image")
    except ValueError as error:
        raise RequestError(
            400, f"{param}: a picture must be whole base64.", param
        ) from error
    return _checked(data, param)


def _checked(data, param):
    """Refuse what does not begin as a picture."""
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
    """Whether an IP address, a str, belongs to the public network."""
    address = ipaddress.ip_address(address)
    return all(
        one.is_global and not one.is_multicast
        for one in (address, *_inner(address))
    )


def _inner(address):
    """The IPv4 addresses that an IPv6 address leads to, by its form."""
    if address.version == 4:
        return []
    found = [address.ipv4_mapped, address.sixtofour]
    found += address.teredo or []
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


class PictureFetcher:
    """Fetches pictures with limits of hosts, addresses, size and time.

    Redirects are not followed. The address that was checked is the one that
    is connected to, so that a name cannot change its address in between.

    Args:
        limits: `Limits`.
        is_allowed: callable of an IP address that says whether it may be
            connected to.
        ports: dict from scheme to the one port that may be asked.
    """

    def __init__(self, limits, is_allowed=is_public, ports=None):
        self._limits = limits
        self._is_allowed = is_allowed
        self._ports = ports or _PORTS

    async def fetch(self, url, param):
        """The bytes at a URL.

        Args:
            url: str.
            param: str, the field that held it.

        Raises:
            RequestError: a host that is not allowed, a private address, a
                redirect, too many bytes, or no answer in time.
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
        # Clients raise many kinds, and their words may hold addresses.
        except Exception as error:
            LOG.info("A picture could not be fetched", exc_info=error)
            raise RequestError(
                400, f"{param}: the picture could not be fetched.", param
            ) from error

    def _check(self, url, param):
        """Refuse a URL by what is written in it."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port or self._ports.get(parts.scheme)
        except ValueError:
            raise RequestError(
                400, f"{param}: this is no valid URL.", param
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

        # The connector asks no resolver for an address written as numbers.
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
    """A resolver of names that keeps public addresses alone."""
    from aiohttp.abc import AbstractResolver

    class PublicAddresses(AbstractResolver):
        """Resolves a name, and refuses it if any address is private."""

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
            """Nothing is held."""

    return PublicAddresses()
