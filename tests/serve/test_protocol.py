"""Heads of requests that have no end, or take too long."""

import contextlib
import socket
import time
import urllib.parse

import pytest
from builders import FASTEST

pytest.importorskip("httptools", reason="the extra `serve`")

from local_server import listening

from keras_bridgetower.serve.limits import Limits
from keras_bridgetower.serve.protocol import BoundedHead
from keras_bridgetower.serve.protocol import http_settings

pytestmark = FASTEST
BODY = b"x" * 300_000
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%s"


class Hasty(BoundedHead):
    """Seconds of a test, not of a server."""

    head_seconds = 0.3


async def length(scope, receive, send):
    """Answers with the length of the body, a moment later."""
    count, more = 0, True
    while more:
        message = await receive()
        count += len(message.get("body", b""))
        more = message.get("more_body")
    body = str(count).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def connect():
    settings = http_settings(Limits()) | {"http": Hasty}
    with listening(length, **settings) as url, contextlib.ExitStack() as stack:
        parts = urllib.parse.urlsplit(url)
        address = (parts.hostname, parts.port)

        def connected():
            return stack.enter_context(
                socket.create_connection(address, timeout=10)
            )

        yield connected


def everything(connection):
    """What comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return found


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        (b"GET / HTTP/1.1\r\na: ", b"b"),
        (b"GET /", b"a"),
    ],
)
def test_a_head_without_end(connect, start, part):
    connection = connect()
    connection.sendall(start)
    sent = 0
    with pytest.raises(OSError):
        while sent < 10_000_000:
            connection.sendall(part * (10_000 // len(part)))
            sent += 10_000
    # What fits into the buffers of the two sockets, and no more.
    assert sent < 10_000_000


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\na: b"])
def test_a_head_that_does_not_come(connect, start):
    connection = connect()
    started = time.monotonic()
    connection.sendall(start)
    assert everything(connection).startswith(b"HTTP/1.1 400")
    assert 0.2 < time.monotonic() - started < 5


def test_a_second_head_that_does_not_come(connect):
    connection = connect()
    connection.sendall(POST % (1, b"x") + b"POST / HTTP/1.1\r\na: b")
    first, _, second = everything(connection).partition(b"\r\n\r\n1")
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 400")


def test_long_bodies_and_late_requests_are_none_of_it(connect):
    connection = connect()
    for _ in range(2):
        connection.sendall(POST % (len(BODY), BODY))
        found = connection.recv(65_536)
        while not found.endswith(str(len(BODY)).encode()):
            found += connection.recv(65_536)
        assert found.startswith(b"HTTP/1.1 200")
        time.sleep(0.5)


def test_a_body_may_take_its_time(connect):
    connection = connect()
    connection.sendall(POST % (2, b"x"))
    time.sleep(0.5)
    connection.sendall(b"x")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
