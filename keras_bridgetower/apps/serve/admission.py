"""Admit requests by host, key, size, queue and time."""

import asyncio
import hmac

from starlette.responses import JSONResponse

from keras_bridgetower.apps.hosts import unknown_host
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.presets.errors import printable

# Routes that are answered at once and without a key.
READY = "/ready"
OPEN = ("/health", READY)
# Characters of a message, which may quote the input of a client.
_LONGEST = 1000
_RETRY = {"retry-after": "1"}
# Headers of errors, by their status.
_HEADERS = {
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},
    429: _RETRY,
    503: _RETRY,
}


class Admission:
    """ASGI middleware that limits the requests to an application.

    The body is received first. Then requests beyond `concurrency` wait, those
    beyond `queue` get 429, and those that take too long get 504. A slow body
    does not occupy a place: it gets 408 after `body_seconds`. If too many
    bodies are received at once, the oldest gets 429.

    Args:
        app: the ASGI application with the routes.
        limits: `Limits`.
        metrics: `Metrics`.
        key: str, the API key, or None.
        routes: set of str, the paths that metrics name.
        hosts: tuple of str, host names that requests may use. If empty, any
            name is allowed with a key and none without. IP addresses and
            `localhost` are always allowed.
    """

    def __init__(self, app, limits, metrics, key, routes, hosts=()):
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._key = key.encode() if key else None
        self._routes = routes
        self._hosts = hosts
        self._turns = asyncio.Semaphore(limits.concurrency)
        # Timeouts of the bodies that are being received, oldest first.
        self._receiving = {}
        # Fully received requests; bytes of all bodies in memory.
        self._received = self._held = self.present = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._routes else "other"
        # The status if the client disconnects first.
        status = 499

        async def answer(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.seconds.labels(route).time():
            try:
                await self._admitted(scope, receive, answer)
            except Exception as error:
                response = error_response(error)
                if status == 499:
                    await response(scope, receive, answer)
            finally:
                self._metrics.requests.labels(route, status).inc()

    async def _admitted(self, scope, receive, answer):
        path = scope["path"]
        self._check_hosts(scope["headers"])
        if path in OPEN:
            await self._app(scope, receive, answer)
            return
        headers = scope["headers"]
        self._check_key(headers)
        # HTTP/1.1 of uvicorn rejects other values.
        self._check_size(int(dict(headers).get(b"content-length", 0)))
        self._check_queue()
        self.present += 1
        self._metrics.present.inc()
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                if await self._receive_into(body, receive):
                    await self._in_turn(scope, bytes(body), receive, answer)
        except TimeoutError:
            message = f"No answer within {self._limits.seconds} seconds."
            raise errors.RequestError(504, message) from None
        finally:
            self._held -= len(body)
            self.present -= 1
            self._metrics.present.dec()

    async def _in_turn(self, scope, body, receive, answer):
        self._check_queue()
        self._received += 1
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again():
            return messages.pop() if messages else await receive()

        try:
            async with self._turns:
                await _while_connected(
                    self._app(scope, receive_again, answer), receive
                )
        finally:
            self._received -= 1

    async def _receive_into(self, body, receive):
        """Receive a body in time. Return False if the client disconnected."""
        limits, more = self._limits, True
        timeout = asyncio.timeout(limits.body_seconds)
        self._receiving[timeout] = None
        try:
            async with timeout:
                while more:
                    self._make_room()
                    if timeout not in self._receiving:
                        raise TimeoutError
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    part = message.get("body", b"")
                    body += part
                    self._held += len(part)
                    self._check_size(len(body))
                    more = message.get("more_body")
        except TimeoutError:
            if timeout not in self._receiving:
                raise errors.TooManyRequests from None
            message = f"The body took more than {limits.body_seconds} seconds."
            raise errors.RequestError(408, message) from None
        finally:
            self._receiving.pop(timeout, None)
        return True

    def _make_room(self):
        """Stop receiving the oldest body if there are too many or too large."""
        limits = self._limits
        if (
            len(self._receiving) > limits.concurrency + limits.queue
            or self._held > limits.concurrency * limits.body_bytes
        ):
            oldest = next(iter(self._receiving))
            del self._receiving[oldest]
            if not oldest.expired():
                oldest.reschedule(0)

    def _check_queue(self):
        if self._received >= self._limits.concurrency + self._limits.queue:
            raise errors.TooManyRequests

    def _check_hosts(self, headers):
        """Reject unknown hosts, against DNS rebinding by web pages."""
        # Pages of other sites do not know the key.
        if self._key is not None and not self._hosts:
            return
        host = unknown_host(headers, self._hosts)
        if host is not None:
            message = f"Unknown host; see `--allowed-host`: {host}"
            raise errors.RequestError(403, message)

    def _check_key(self, headers):
        if self._key is None:
            return
        # Two headers are joined by a comma, and match no key.
        given = b",".join(v for k, v in headers if k == b"authorization")
        scheme, _, key = given.partition(b" ")
        valid = hmac.compare_digest(key.strip(), self._key)
        if scheme.lower() != b"bearer" or not valid:
            message = "The header `Authorization: Bearer KEY` needs the key."
            raise errors.RequestError(401, message)

    def _check_size(self, count):
        most = self._limits.body_bytes
        if count > most:
            message = f"The body must have at most {most} bytes."
            raise errors.RequestError(413, message)


def error_response(error):
    """Build the response of an error, in the shape of OpenAI's.

    Args:
        error: `RequestError`; any other error is unexpected, and logged.
    """
    if not isinstance(error, errors.RequestError):
        errors.LOG.error("A request failed", exc_info=error)
        error = errors.RequestError(
            500, "The server failed on this request; see its log."
        )
    message, status = printable(error.message), error.status
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}…"
    body = {
        "message": message,
        "type": "server_error" if status >= 500 else "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
    # Clients of Jina show `detail`.
    content = {"error": body, "detail": message}
    return JSONResponse(content, status, _HEADERS.get(status))


async def _while_connected(work, receive):
    """Run a coroutine; cancel it if the client disconnects first.

    ASGI reports a disconnect on receive only, once the body was received.
    """
    work = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
