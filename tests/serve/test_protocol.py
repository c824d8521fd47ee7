"""Test endless and slow heads and trailers of requests."""

import contextlib
import socket
import time
import urllib.parse

import pytest
from builders import FASTEST

pytest.importorskip("httptools", reason="the extra `serve`")

from local_server import listening

from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.workers import BoundedHead
from keras_bridgetower.apps.serve.workers import http_settings

pytestmark = FASTEST
BODY = b"x" * 300_000
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%s"


class Hasty(BoundedHead):
    head_seconds = 0.3


async def describe(scope, receive, send):
    """Answers with the length of the body, or refuses it at once."""
    count, more = 0, scope["path"] == "/"
    status = 200 if more else 413
    while more:
        message = await receive()
        count += len(message.get("body", b""))
        more = message.get("more_body")
    names = [name for name, _ in scope["headers"]]
    body = b"%d %a" % (count, names)
    headers = [(b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": status}
    await send(start | {"headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def connect():
    settings = http_settings(Limits()) | {"http": Hasty}
    with (
        listening(describe, **settings) as url,
        contextlib.ExitStack() as stack,
    ):
        parts = urllib.parse.urlsplit(url)
        address = (parts.hostname, parts.port)
        yield lambda: stack.enter_context(
            socket.create_connection(address, timeout=10)
        )


def everything(connection):
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return found


HEAD = b"GET / HTTP/1.1\r\nhost: here\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = CHUNKED + b"1\r\nx\r\n0\r\n"
END = b"\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (HEAD, b"a: b\r\n"),
        (LAST, b"a: b\r\n"),
        (LAST, b"a"),
        (CHUNKED + b"1;", b"a"),
    ],
    ids=["headers", "trailers", "name of a trailer", "extension"],
)
def test_endless_heads_and_trailers_are_rejected(connect, start, part):
    connection, sent = connect(), 0
    connection.sendall(start)
    # What fits into the buffers of the two sockets, and no more.
    with pytest.raises(OSError):
        while sent < 10_000_000:
            connection.sendall(part * (10_000 // len(part)))
            sent += 10_000
    assert sent < 10_000_000


@pytest.mark.parametrize(
    ("start", "part", "end", "answers"),
    [
        (HEAD + b"a: ", b"a", END, 1),
        (HEAD, b"a: b\r\n", END, 1),
        (HEAD, b"a:\r\n", END, 1),
        (b"GET /", b"a", b" HTTP/1.1\r\nhost: here" + END, 1),
        (HEAD + b"\r\n" + HEAD + b"a: ", b"a", END, 2),
        (LAST, b"a: b\r\n", END, 1),
        (LAST + b"a: ", b"a", END, 1),
        (CHUNKED + b"1;a=", b"a", b"\r\nx\r\n0" + END, 1),
    ],
    ids=[
        *("header", "headers", "empty headers", "path", "second head"),
        *("trailers", "trailer", "extension"),
    ],
)
def test_whole_heads_and_trailers_are_bounded(
    connect, start, part, end, answers
):
    """They are too long, and end before the server has noticed it."""
    for size in (60_000, 70_000):
        connection, found = connect(), b""
        with contextlib.suppress(OSError):
            connection.sendall(start + part * (size // len(part)) + end)
        if size > 65_536:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            # A first request may be closed before its answer.
            assert answered(everything(connection)) < answers
        else:
            # Its end could come before the answer to a second request.
            while answered(found) < answers:
                found += connection.recv(65_536)


def answered(found):
    return found.count(b"HTTP/1.1 200") + found.count(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTTP/1.1\r\na: b", POST % (1, b"x")]
)
def test_missing_heads_time_out(connect, start):
    connection = connect()
    started = time.monotonic()
    connection.sendall(start)
    if start.startswith(b"POST"):
        # The head of a second request.
        connection.sendall(b"POST / HTTP/1.1\r\na: b")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    *_, last = everything(connection).rpartition(b"HTTP/1.1 ")
    assert last.startswith(b"400")
    assert 0.2 < time.monotonic() - started < 5


def test_long_and_slow_bodies_and_idle_connections_are_allowed(connect):
    connection = connect()
    for _ in range(2):
        connection.sendall(POST % (len(BODY), BODY[:-1]))
        time.sleep(0.4)
        connection.sendall(BODY[-1:])
        found = connection.recv(65_536)
        while not found.endswith(b"]"):
            found += connection.recv(65_536)
        assert b"\r\n\r\n%d [" % len(BODY) in found
        time.sleep(0.4)


def test_trailers_time_out_and_do_not_become_headers(connect):
    connection = connect()
    connection.sendall(LAST + b"a: b\r\nc: d\r\n")
    assert everything(connection).startswith(b"HTTP/1.1 400")
    connection = connect()
    connection.sendall(LAST + b"authorization: b" + END)
    answer = connection.recv(65_536)
    assert answer.endswith(b"1 [b'host', b'transfer-encoding']")


@pytest.mark.parametrize("slow", [False, True])
def test_a_body_that_goes_on_after_its_answer_ends(connect, slow):
    connection = connect()
    connection.sendall(CHUNKED.replace(b"/", b"/refused", 1))
    assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
    until = time.monotonic() + 20
    with pytest.raises(OSError):
        while time.monotonic() < until:
            connection.sendall(b"1\r\nx\r\n")
            time.sleep(0.05 if slow else 0)
    assert time.monotonic() < until
