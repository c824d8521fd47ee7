"""Test that work ends when its client disconnects."""

import asyncio
import json
import socket
import time
import urllib.parse

import pytest
from builders import FASTEST
from served import FUSED
from served import KEY

pytest.importorskip("prometheus_client", reason="the extra `serve`")

from keras_bridgetower.apps.serve.admission import EndsWithClient

pytestmark = FASTEST


def test_requests_of_disconnected_clients_end(server, client):
    before = gone(client)
    body = {"input": ["a red circle"] * 64, "model": FUSED}
    for _ in range(3):
        leave(server.url, json.dumps(body).encode())
    until = time.monotonic() + 10
    while gone(client) < before + 3 or server.admission.present:
        assert time.monotonic() < until
        time.sleep(0.01)
    # Its connection, its turn and its place in the queue are free.
    assert client.post("/v1/embeddings", json=body).status_code == 200


def leave(url, body):
    """Send a request, and go."""
    parts = urllib.parse.urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: here\r\n"
            b"content-type: application/json\r\n"
            b"authorization: Bearer %s\r\n"
            b"content-length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body)
        )


def gone(client):
    """How many requests ended without an answer."""
    page = client.get("/metrics").text
    lines = [x for x in page.splitlines() if "requests_total{" in x]
    counts = [float(x.split()[-1]) for x in lines if 'status="499"' in x]
    return sum(counts)


class Client:
    """Sends a body in two parts, then stays until it is told to go."""

    def __init__(self):
        self._parts = [b"a", b"b"]
        self.goes = asyncio.Event()
        self.sent = []

    async def receive(self):
        if self._parts:
            part = self._parts.pop(0)
            more = bool(self._parts)
            return {"type": "http.request", "body": part, "more_body": more}
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)


class App:
    """Reads the body, works, and answers in two parts."""

    def __init__(self):
        self.go = asyncio.Event()
        self.ended = None

    async def __call__(self, scope, receive, send):
        try:
            while (await receive())["more_body"]:
                pass
            await self.go.wait()
            body = {"type": "http.response.body", "body": b"c"}
            await send({"type": "http.response.start", "status": 200})
            await send(body | {"more_body": True})
            await send(body)
            self.ended = "answered"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


def run(check):
    async def checked():
        app, client = App(), Client()
        work = EndsWithClient(app)(
            {"type": "http"}, client.receive, client.send
        )
        task = asyncio.create_task(work)
        await asyncio.sleep(0.01)
        await check(app, client, task)

    asyncio.run(checked())


def test_connected_clients_are_answered():
    async def check(app, client, task):
        app.go.set()
        await task
        assert app.ended == "answered"
        assert len(client.sent) == 3

    run(check)


def test_work_of_a_disconnected_client_is_cancelled():
    async def check(app, client, task):
        client.goes.set()
        # It ends as if it had answered: who waits for it goes on.
        await task
        assert (app.ended, client.sent) == ("cancelled", [])
        assert task.cancelling() == 0

    run(check)


def test_cancellation_from_outside_propagates():
    async def check(app, client, task):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert app.ended == "cancelled"

    run(check)
