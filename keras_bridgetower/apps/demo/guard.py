"""Rejects requests before Gradio handles them.

A browser shows an uploaded file before any check of the page can answer, and
would decode gigabytes.
"""

import logging
import os

from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.inputs import check_picture
from keras_bridgetower.checks import is_known_host

LOG = logging.getLogger("keras_bridgetower.apps.demo")
_FILE = "/file="
_FAILED, _UNKNOWN_HOST, _TOO_LARGE = 400, 403, 413


class Guard:
    """ASGI middleware that checks the host and the file of a request.

    Errors of Gradio about malformed requests are logged in one line.

    Args:
        app: the ASGI application behind it.
        folder: path of the folder of uploads. Other files are not checked.
        limits: `Limits`.
        hosts: tuple of str, host names of the page.
    """

    def __init__(self, app, folder, limits, hosts):
        self._app = app
        self._folder = os.path.realpath(folder)
        self._limits = limits
        self._hosts = hosts

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_response(message):
            nonlocal started
            started = True
            await send(message)

        try:
            if not self._knows(scope["headers"]):
                await _answer(send, _UNKNOWN_HOST, "unknown host")
            elif not self._may_be_shown(scope["path"]):
                await _answer(send, _TOO_LARGE, "too large")
            else:
                await self._app(scope, receive, send_response)
        except Exception as error:
            # Of Gradio itself: functions of the page handle their errors.
            LOG.info("A request failed: %s %r", scope["path"], error)
            if not started:
                await _answer(send, _FAILED, "bad request")

    def _knows(self, headers):
        return all(
            is_known_host(value.decode("latin-1"), self._hosts)
            for name, value in headers
            if name == b"host"
        )

    def _may_be_shown(self, path):
        _, file, name = path.partition(_FILE)
        if not file or "\0" in name:
            return True
        name = os.path.realpath(name)
        uploaded = name.startswith(self._folder + os.sep)
        if not (uploaded and os.path.isfile(name)):
            return True
        try:
            check_picture(name, self._limits)
        except RefusedInput:
            return False
        return True


async def _answer(send, status, text):
    headers = [(b"content-type", b"text/plain")]
    start = {"type": "http.response.start", "status": status}
    await send(start | {"headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
