"""Checks before a route: host, key, size, queue and time."""

import asyncio
import hmac
import json
import time

from keras_bridgetower.checks import is_known_host
from keras_bridgetower.serve.errors import RequestError
from keras_bridgetower.serve.errors import error_body
from keras_bridgetower.serve.errors import unexpected

# Answered at once, and without a key.
READY = "/ready"
OPEN = ("/health", READY, "/v1/health_check")


class Admission:
    """An ASGI application that lets requests through to another.

    Requests beyond `concurrency` wait, those beyond `queue` get 429 before
    their body is read, and those that take too long get 504.

    Args:
        app: the ASGI application with the routes.
        limits: `Limits`.
        metrics: `Metrics`.
        key: str, the API key, or None.
        routes: set of str, the paths that metrics name.
        hosts: tuple of str, names by which clients may call the server. Empty
            means any name if there is a key, and else none: IP addresses and
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
            await answer.refuse(unexpected(error))
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
            raise RequestError(503, "The server is about to stop.")
        if path in OPEN:
            await self._app(scope, receive, answer.send)
            return
        headers = dict(scope["headers"])
        self._check_key(headers)
        self._check_size(headers.get(b"content-length", b"0"))
        if self.draining:
            raise RequestError(503, "The server is about to stop.")
        if self.present >= self._limits.concurrency + self._limits.queue:
            raise RequestError(
                429, "Too many requests wait here. Try again in a second."
            )
        self.present += 1
        self._metrics.present.set(self.present)
        try:
            await self._in_time(scope, receive, answer)
        finally:
            self.present -= 1
            self._metrics.present.set(self.present)

    async def _in_time(self, scope, receive, answer):
        try:
            async with asyncio.timeout(self._limits.seconds), self._turns:
                limited = self._limited(receive)
                await self._app(scope, limited, answer.send)
        except TimeoutError:
            raise RequestError(
                504,
                f"There was no answer within {self._limits.seconds} seconds.",
            ) from None

    def _check_hosts(self, headers):
        """Refuse hosts by which a web page may reach us (DNS rebinding)."""
        # No page of another site knows the key.
        if self._key is not None and not self._hosts:
            return
        for name, value in headers:
            host = value.decode("latin-1")
            if name == b"host" and not is_known_host(host, self._hosts):
                raise RequestError(
                    403,
                    "The server does not know the host that the request "
                    "names. Start it with `--allowed-host NAME` to allow one. "
                    f"Received: {host}",
                )

    def _check_key(self, headers):
        if self._key is None:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        known = hmac.compare_digest(given.strip(), self._key)
        if scheme.lower() != b"bearer" or not known:
            raise RequestError(
                401,
                "The API key is missing or wrong. Send it in the header "
                "`Authorization: Bearer KEY`.",
            )

    def _check_size(self, length):
        if not length.isdigit() or int(length) > self._limits.body_bytes:
            raise self._too_large()

    def _limited(self, receive):
        """`receive`, which counts what the header need not have told."""
        count = 0

        async def limited():
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self._limits.body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self):
        return RequestError(
            413,
            f"The body must have at most {self._limits.body_bytes} bytes. "
            "Divide it into several requests.",
        )


class _Answer:
    """An answer that is refused in the one shape, if it has not begun."""

    def __init__(self, send):
        self._send = send
        # Where the client has gone before.
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
