"""Keeps pictures that are too large from the visitor's own browser.

The browser shows an uploaded file as soon as the server has it, before any
check of the page can answer, and would decode gigabytes.
"""

import os

from keras_bridgetower.demo.inputs import RefusedInput
from keras_bridgetower.demo.inputs import check_picture

_FILE = "/file="
_TOO_LARGE = 413


class LargePictureGuard:
    """A layer of the server (ASGI) in front of the files that it shows.

    Args:
        app: the ASGI application behind it.
        folder: path of the folder of uploaded files. Others are none of its
            business.
        limits: `Limits`.
    """

    def __init__(self, app, folder, limits):
        self._app = app
        self._folder = os.path.realpath(folder)
        self._limits = limits

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and not self._may_be_shown(scope["path"]):
            await send(
                {
                    "type": "http.response.start",
                    "status": _TOO_LARGE,
                    "headers": [(b"content-type", b"text/plain")],
                }
            )
            await send({"type": "http.response.body", "body": b"too large"})
            return
        await self._app(scope, receive, send)

    def _may_be_shown(self, path):
        _, file, name = path.partition(_FILE)
        name = os.path.realpath(name)
        uploaded = name.startswith(self._folder + os.sep)
        if not (file and uploaded and os.path.isfile(name)):
            return True
        try:
            check_picture(name, self._limits)
        except RefusedInput:
            return False
        return True
