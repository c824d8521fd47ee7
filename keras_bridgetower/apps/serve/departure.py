"""Ends the work for a client that has gone."""

import asyncio


class EndsWithClient:
    """An ASGI application that ends another when its client disconnects.

    A server only tells who asks. So this asks while the application works.

    Args:
        app: an ASGI application that reads the body before it works.
    """

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = _Client(receive, send)
        try:
            await self._app(scope, client.receive, client.send)
        except asyncio.CancelledError:
            if not client.gone:
                raise
            asyncio.current_task().uncancel()
        finally:
            client.forget()


class _Client:
    """A client that is watched from the end of its body to its answer."""

    def __init__(self, receive, send):
        self._receive = receive
        self._send = send
        self._work = asyncio.current_task()
        self._watch = None
        self._answered = False
        self.gone = False

    async def receive(self):
        if self._watch is not None:
            return await asyncio.shield(self._watch)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._watch = asyncio.create_task(self._until_gone())
        return message

    async def send(self, message):
        if message["type"] == "http.response.body":
            self._answered = not message.get("more_body")
        await self._send(message)

    async def _until_gone(self):
        message = await self._receive()
        if not self._answered:
            self.gone = True
            self._work.cancel()
        return message

    def forget(self):
        self._answered = True
        if self._watch is not None:
            self._watch.cancel()
