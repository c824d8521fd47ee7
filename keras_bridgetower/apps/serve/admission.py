"""Admit requests: host, key, size, queue, time. Stop work for gone clients."""

import asyncio
import contextlib
import hmac
import json
import time

from keras_bridgetower.apps.hosts import is_known_host
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.errors import error_body
from keras_bridgetower.apps.serve.errors import unexpected_error

# Answered at once and without a key.
READY = "/ready"
OPEN = ("/health", READY, "/v1/health_check")


class Admission:
    """ASGI middleware that limits the requests to an application.

    The body is received first. Then requests beyond `concurrency` wait, those
    beyond `queue` get 429, and those that take too long get 504. A slow body
    does not occupy a place: it gets 408 after `body_seconds`. If too many
    bodies are received at once, the oldest gets 429. Once `draining` is set
    (by Ray Serve, when a replica stops), new requests get 503.

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
        # Number of fully received requests; bytes of all bodies in memory.
        self._received = 0
        self._held = 0
        self.present = 0
        self.draining = False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answer = _Answer(send)
        try:
            await self._admitted(scope, receive, answer)
        except RequestError as error:
            await answer.refuse(error)
        except Exception as error:
            await answer.refuse(unexpected_error(error))
        finally:
            path = scope["path"]
            route = path if path in self._routes else "other"
            self._metrics.requests.labels(route, answer.status).inc()
            self._metrics.seconds.labels(route).observe(
                time.perf_counter() - started
            )

    async def _admitted(self, scope, receive, answer):
        path = scope["path"]
        self._check_hosts(scope["headers"])
        if self.draining and path == READY:
            raise RequestError(503, "The server is stopping.")
        if path in OPEN:
            await self._app(scope, receive, answer.send)
            return
        headers = dict(scope["headers"])
        self._check_key(headers)
        self._check_size(headers.get(b"content-length", b"0"))
        if self.draining:
            raise RequestError(503, "The server is stopping.")
        self._check_queue()
        self.present += 1
        self._metrics.present.set(self.present)
        try:
            await self._in_time(scope, receive, answer)
        finally:
            self.present -= 1
            self._metrics.present.set(self.present)

    async def _in_time(self, scope, receive, answer):
        try:
            async with (
                asyncio.timeout(self._limits.seconds),
                self._body(receive) as body,
            ):
                # None if the client disconnected.
                if body is not None:
                    await self._in_turn(scope, body, receive, answer)
        except TimeoutError:
            raise RequestError(
                504,
                f"There was no answer within {self._limits.seconds} seconds.",
            ) from None

    async def _in_turn(self, scope, body, receive, answer):
        self._check_queue()
        self._received += 1
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again():
            return messages.pop() if messages else await receive()

        try:
            async with self._turns:
                await self._app(scope, receive_again, answer.send)
        finally:
            self._received -= 1

    @contextlib.asynccontextmanager
    async def _body(self, receive):
        """Receive a body, whose bytes are counted until the context ends."""
        body = bytearray()
        try:
            whole = await self._receive_into(body, receive)
            yield bytes(body) if whole else None
        finally:
            self._held -= len(body)

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
                    if len(body) > limits.body_bytes:
                        raise self._too_large()
                    more = message.get("more_body")
        except TimeoutError:
            if timeout in self._receiving:
                raise RequestError(
                    408,
                    "The body must be sent within "
                    f"{limits.body_seconds} seconds. Send a smaller one.",
                ) from None
            raise _too_many() from None
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
            raise _too_many()

    def _check_hosts(self, headers):
        """Reject unknown hosts, against DNS rebinding by web pages."""
        # Pages of other sites do not know the key.
        if self._key is not None and not self._hosts:
            return
        for name, value in headers:
            host = value.decode("latin-1")
            if name == b"host" and not is_known_host(host, self._hosts):
                raise RequestError(
                    403,
                    "The request names an unknown host. Start the server with "
                    "`--allowed-host NAME` to allow one. "
                    f"Received: {host}",
                )

    def _check_key(self, headers):
        if self._key is None:
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        valid = hmac.compare_digest(key.strip(), self._key)
        if scheme.lower() != b"bearer" or not valid:
            raise RequestError(
                401,
                "The API key is missing or wrong. Send it in the header "
                "`Authorization: Bearer KEY`.",
            )

    def _check_size(self, length):
        if not length.isdigit() or int(length) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self):
        return RequestError(
            413,
            f"The body must have at most {self._limits.body_bytes} bytes. "
            "Split it into several requests.",
        )


def _too_many():
    return RequestError(
        429, "Too many requests are waiting. Try again in a second."
    )


class _Answer:
    """A response that can be replaced by an error until it has started."""

    def __init__(self, send):
        self._send = send
        # Kept if the client disconnects first.
        self.status = 499
        self._begun = False

    async def send(self, message):
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, error):
        if self._begun:
            return
        body = json.dumps(error_body(error)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if error.status in (429, 503):
            headers.append((b"retry-after", b"1"))
        if error.status == 408:
            headers.append((b"connection", b"close"))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self.send(
            {
                "type": "http.response.start",
                "status": error.status,
                "headers": headers,
            }
        )
        await self.send({"type": "http.response.body", "body": body})


class EndsWithClient:
    """ASGI middleware that cancels an application when its client disconnects.

    Polls for disconnects, which ASGI reports only on receive.

    Args:
        app: an ASGI application that reads the body before it computes.
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
    """A client, watched from the end of its body to the end of the response."""

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
