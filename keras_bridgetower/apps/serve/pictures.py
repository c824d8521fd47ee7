"""Pictures of a request: base64 or an allowed URL to bytes."""

import asyncio

from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.preprocessing.base64_pictures import decode_base64
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import URL
from keras_bridgetower.preprocessing.images import check_signature

# Longer base64 is decoded by another thread, while other requests go on.
_QUICK = 100_000


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
