"""Test admission: host, key, size, queue and time."""

import asyncio
import json

import pytest
from builders import FASTEST
from served import in_loop

pytest.importorskip("prometheus_client", reason="the extra `serve`")

from keras_bridgetower.apps.serve.admission import Admission
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.service import Metrics

pytestmark = FASTEST
KEY = b"Bearer key"


class Asked:
    def __init__(self, path="/v1/fill", headers=(), parts=(b"",), keys=(KEY,)):
        headers = [*((b"authorization", key) for key in keys), *headers]
        self.scope = {"type": "http", "path": path, "headers": headers}
        self._parts = list(parts)
        self.leaves, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()
        self.sent = []

    async def receive(self):
        if not self._parts:
            await self.leaves.wait()
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        if not self._parts:
            await self.go.wait()
        more = bool(self._parts)
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(self, message):
        self.sent.append(message)

    @property
    def result(self):
        status = self.sent[0]["status"]
        if status == 200:
            return status, None
        return status, json.loads(self.sent[1]["body"])["error"]["code"]


def slow():
    """A request that sends the rest of its body when it is let go."""
    request = Asked(parts=(b"{", b"}"))
    request.go.clear()
    return request


class App:
    def __init__(self, go=False):
        self.go = asyncio.Event()
        self.running = self.cancelled = 0
        if go:
            self.go.set()

    async def __call__(self, scope, receive, send):
        while (await receive())["more_body"]:
            pass
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})


def admission(app, key="key", hosts=(), **limits):
    return Admission(app, Limits(**limits), Metrics(), key, set(), hosts)


def send(admit, request):
    return asyncio.create_task(
        admit(request.scope, request.receive, request.send)
    )


async def asked(admit, *args, **kwargs):
    request = Asked(*args, **kwargs)
    await send(admit, request)
    return request


@in_loop
async def test_the_queue_is_bounded():
    app = App()
    admit = admission(app, concurrency=2, queue=3)
    tasks = [asyncio.create_task(asked(admit)) for _ in range(9)]
    await asyncio.sleep(0.05)
    assert app.running == 2
    refused = [task.result() for task in tasks if task.done()]
    assert [x.result for x in refused] == [(429, "queue_full")] * 4
    assert (b"retry-after", b"1") in refused[0].sent[0]["headers"]
    app.go.set()
    answers = await asyncio.gather(*tasks)
    assert sum(x.result == (200, None) for x in answers) == 5
    assert admit.present == 0


@in_loop
async def test_late_bodies_and_answers_get_errors_and_are_cancelled():
    admit, body = admission(App(), body_seconds=0.05), slow()
    await send(admit, body)
    assert body.result == (408, "body_timed_out")
    assert (b"connection", b"close") in body.sent[0]["headers"]
    assert admit.present == 0
    app = App()
    # On a busy machine, the first one has to begin in this time.
    admit = admission(app, seconds=0.5, concurrency=1)
    # Time in the queue counts.
    both = await asyncio.gather(asked(admit), asked(admit))
    assert [x.result for x in both] == [(504, "timed_out")] * 2
    assert (app.cancelled, app.running, admit.present) == (1, 0, 0)


@pytest.mark.parametrize("by", ["its client", "the server"])
@in_loop
async def test_ended_work_is_cancelled(by):
    app, request = App(), Asked()
    admit = admission(app)
    task = send(admit, request)
    await asyncio.sleep(0.01)
    if by == "its client":
        request.leaves.set()
        await task
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (app.cancelled, app.running, admit.present) == (1, 0, 0)
    assert request.sent == []


@in_loop
async def test_the_slowest_bodies_make_room_for_new_requests():
    admit = admission(App(go=True), concurrency=1, queue=3)
    bodies = [slow() for _ in range(4)]
    tasks = [send(admit, one) for one in bodies]
    await asyncio.sleep(0.01)
    assert (await asked(admit)).result == (200, None)
    await tasks[0]
    assert bodies[0].result == (429, "queue_full")
    for one in bodies:
        one.go.set()
    await asyncio.gather(*tasks)
    assert [one.result for one in bodies[1:]] == [(200, None)] * 3


@in_loop
async def test_the_memory_of_bodies_is_bounded():
    app = App()
    # Together as many bytes as the requests that are worked on may have.
    admit = admission(app, concurrency=1, queue=10, body_bytes=10)
    first = asyncio.create_task(asked(admit, parts=[b"x" * 8]))
    await asyncio.sleep(0.01)
    second = await asked(admit, parts=[b"x" * 4, b""])
    assert second.result == (429, "queue_full")
    app.go.set()
    assert (await first).result == (200, None)
    assert (await asked(admit, parts=[b"x" * 8])).result == (200, None)
    # That of one body is, with and without its length.
    for values in (
        {"headers": [(b"content-length", b"11")]},
        {"parts": [b"12345", b"67890", b"1"]},
    ):
        assert (await asked(admit, **values)).result == (413, "too_large")


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        *(([x], 200) for x in (KEY, b"bearer key", b"BEARER  key ")),
        *(([x], 401) for x in (b"key", b"Basic key", b"Bearerkey", b"\xff")),
        *(([x], 401) for x in (b"Bearer Bearer key", b"Bearer Key", b"Bearer")),
        # A proxy may check another one of two headers.
        *((x, 401) for x in ([], [b""], [KEY, KEY], [KEY, b""], [b"", KEY])),
        *((x, 401) for x in ([KEY, b"Bearer a"], [b"Basic a", KEY])),
    ],
)
@in_loop
async def test_one_key_needs_the_bearer_scheme(keys, status):
    admit = admission(App(go=True))
    request = await asked(admit, keys=keys)
    assert request.result == (status, {401: "invalid_api_key"}.get(status))
    health = await asked(admit, "/health", keys=keys)
    assert health.result == (200, None)


KNOWN = ("localhost:8000", "LocalHost", "127.0.0.1:8000", "[::1]:8000", "[::1]")
REBOUND = (
    *("evil.example", "evil.example:8000", "localhost.evil.example"),
    *("127.0.0.1.evil.example:8000", "localhost@evil.example"),
    *("evil.example#localhost", "localhost:8000:9000", "2130706433"),
    *("[evil.example]", ""),
)


@pytest.mark.parametrize(
    ("key", "hosts", "host", "status"),
    [
        *((None, (), host, 200) for host in KNOWN),
        *((None, (), host, 403) for host in REBOUND),
        # Two headers.
        (None, (), "evil.example,localhost", 403),
        # Addresses in numbers cannot be rebound: no name is looked up.
        (None, (), "192.168.1.5:8000", 200),
        (None, ("API.example.org",), "api.example.org.:443", 200),
        (None, ("api.example.org",), "evil.example", 403),
        # No browser sends the key for another site.
        ("key", (), "evil.example", 200),
        ("key", ("api.example.org",), "evil.example", 403),
        ("key", ("api.example.org",), "api.example.org", 200),
    ],
)
@in_loop
async def test_hosts_that_are_answered(key, hosts, host, status):
    headers = [(b"host", one.encode()) for one in host.split(",")]
    admit = admission(App(go=True), key, hosts)
    for path in ("/v1/answer", "/health"):
        request = await asked(admit, path, headers)
        assert request.result == (status, {403: "unknown_host"}.get(status))


@in_loop
async def test_unexpected_errors_hide_their_message():
    async def app(scope, receive, send):
        raise KeyError("/home/secret")

    request = await asked(admission(app))
    assert request.result == (500, "internal_error")
    assert b"secret" not in request.sent[1]["body"]
    # Others quote a part of long inputs.
    headers = [(b"host", b"x" * 5000)]
    request = await asked(admission(App(), None), headers=headers)
    assert request.result == (403, "unknown_host")
    # Twice, as clients of two kinds read it, each of 1,000 characters at most.
    assert len(request.sent[1]["body"]) < 2500
