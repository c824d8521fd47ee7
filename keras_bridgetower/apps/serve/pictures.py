"""Read the pictures of requests: base64, or a URL of an allowed host.

URLs are fetched at public addresses only.
"""

import asyncio
import ipaddress
import socket
import urllib.parse

from keras_bridgetower.apps.serve import errors
from keras_bridgetower.preprocessing.images import decode_base64

# IPv6 networks whose addresses lead to addresses of IPv4: NAT64 and 6to4.
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "2002::/16")))
_PORTS = {"http": 80, "https": 443}


def is_public(address):
    """Return True if an IP address, a str, is on the public network."""
    address = ipaddress.ip_address(address)
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_multicast or any(address in net for net in _EMBEDDING):
        return False
    return address.is_global


class PictureReader:
    """Read pictures as bytes of image files.

    `Decoders` check them, since even a header may take seconds. URLs are
    fetched with limits on hosts, addresses, size and time. Redirects are not
    followed. The address is checked when its socket is opened, so that a name
    cannot change its address in between.

    Args:
        limits: `Limits`. Without `picture_hosts`, URLs are rejected.
    """

    def __init__(self, limits):
        self._limits = limits

    async def read(self, text, param):
        """Return the bytes of a picture.

        Args:
            text: str, base64, a `data:` URL, or another URL; or None.
            param: str, the field that contains it.

        Returns:
            bytes, or None for None.

        Raises:
            FieldError: damaged base64, a URL that is not allowed, a private
                address, a redirect, too many bytes, or no answer in time.
        """
        if text is None:
            return None
        try:
            # Base64 has no colon.
            if "://" in text[:64]:
                return await self._fetched(text)
            return await asyncio.to_thread(decode_base64, text, "image")
        except _FetchError as error:
            raise errors.FieldError(param, str(error)) from error
        except ValueError as error:
            raise errors.FieldError(param, "must be base64 data.") from error

    async def _fetched(self, url):
        """Return the bytes at a URL."""
        self._check(url)
        seconds = self._limits.picture_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(url)
        except _FetchError:
            raise
        except TimeoutError as error:
            message = f"the host did not send it within {seconds} seconds."
            raise _FetchError(message) from error
        # Clients raise many types, and messages may contain addresses.
        except Exception as error:
            errors.LOG.info("A picture could not be fetched", exc_info=error)
            raise _FetchError("the picture could not be fetched.") from error

    def _check(self, url):
        """Reject a URL by its scheme, host, port or user name."""
        hosts = self._limits.picture_hosts
        if not hosts:
            raise _FetchError("this server does not fetch URLs. Send base64.")
        try:
            parts = urllib.parse.urlsplit(url)
            usual = _PORTS.get(parts.scheme)
            # `hostname` is in lower case.
            allowed = (
                usual is not None
                and parts.port in (None, usual)
                and parts.username is None
                and parts.hostname in map(str.lower, hosts)
            )
        except ValueError:
            allowed = False
        if not allowed:
            hosts = ", ".join(hosts)
            raise _FetchError(f"only https:// and http:// from {hosts}.")

    async def _answer(self, url):
        import aiohttp

        def opened(found):
            family, kind, protocol, _, address = found
            if not is_public(address[0]):
                raise OSError("an address that is not public")
            return socket.socket(family, kind, protocol)

        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=opened)
            ) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise _FetchError(f"the host's status is {answer.status}.")
            most, data = self._limits.picture_bytes, bytearray()
            async for part in answer.content.iter_chunked(65536):
                data += part
                if len(data) > most:
                    raise _FetchError(f"it must have at most {most} bytes.")
            return bytes(data)


class _FetchError(ValueError):
    """A picture that cannot be fetched, with a message for clients."""
