"""Pictures of a request: base64 or an allowed URL to bytes, checked early."""

import asyncio
import io

from PIL import Image

from keras_bridgetower.preprocessing.base64_pictures import decode_base64
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import URL
from keras_bridgetower.preprocessing.images import check_signature
from keras_bridgetower.serve.errors import RequestError

# Longer base64 is decoded by another thread, while other requests go on.
_QUICK = 100_000


class PictureReader:
    """Makes bytes of image files out of what clients send.

    Args:
        limits: `Limits`.
        fetcher: `PictureFetcher`, or None where URLs are refused.
    """

    def __init__(self, limits, fetcher=None):
        self._limits = limits
        self._fetcher = fetcher

    async def read(self, text, param):
        """The bytes of a picture whose size was checked in its header.

        Args:
            text: str, base64, a `data:` URL with it, or another URL.
            param: str, the field that held it.

        Raises:
            RequestError: no picture, one with too many pixels, or a URL that
                may not be fetched.
        """
        if URL.match(text[:64]):
            data = await self._fetched(text, param)
            return await asyncio.to_thread(self._checked, data, param)
        if len(text) < _QUICK:
            return self._decoded(text, param)
        return await asyncio.to_thread(self._decoded, text, param)

    async def _fetched(self, url, param):
        if self._fetcher is None:
            raise RequestError(
                400,
                f"{param}: pictures are not fetched by URL here. Send base64.",
                param,
            )
        return await self._fetcher.fetch(url, param)

    def _decoded(self, text, param):
        try:
            data = decode_base64(text, "image")
        except ValueError as error:
            raise RequestError(
                400, f"{param}: a picture must be whole base64.", param
            ) from error
        return self._checked(data, param)

    def _checked(self, data, param):
        """Refuse what is no picture, or a large one, before it is decoded."""
        try:
            check_signature(data, "image")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self._too_large(param) from None
        # Damaged files make Pillow raise nearly anything.
        except Exception as error:
            raise RequestError(
                400,
                f"{param}: a picture must be a readable file, one of "
                f"{', '.join(FORMATS)}. Received: {len(data)} bytes",
                param,
            ) from error
        if width * height > self._limits.picture_pixels:
            raise self._too_large(param)
        return data

    def _too_large(self, param):
        most = self._limits.picture_pixels
        return RequestError(
            400,
            f"{param}: a picture must have at most {most} pixels. Send a "
            "smaller one.",
            param,
            "picture_too_large",
        )
