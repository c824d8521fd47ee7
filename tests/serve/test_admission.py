"""Test admission: key, size, queue and time."""

import asyncio
import json

import pytest
from builders import FASTEST

pytest.importorskip("prometheus_client", reason="the extra `serve`")

from keras_bridgetower.apps.serve.admission import Admission
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.service import Metrics

pytestmark = FASTEST


class Asked:
    """A request to an `Admission`, and what came back."""

    def __init__(self, path="/v1/answer", headers=(), parts=(b"{}",)):
        self.scope = {
            "type": "http",
            "path": path,
            "headers": [(b"authorization", b"Bearer key"), *headers],
        }
        self._parts = list(parts)
        self.leaves = asyncio.Event()
        self.sent = []

    async def receive(self):
        if not self._parts:
            await self.leaves.wait()
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        return {
            "type": "http.request",
            "body": part,
            "more_body": bool(self._parts),
        }

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def code(self):
        return json.loads(self.sent[1]["body"])["error"]["code"]


class App:
    """Reads the body, and answers when it is let go."""

    def __init__(self):
        self.go = asyncio.Event()
        self.running = 0
        self.cancelled = 0

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


async def asked(admission, *args, **kwargs):
    request = Asked(*args, **kwargs)
    await admission(request.scope, request.receive, request.send)
    return request


def run(function):
    return asyncio.run(function())


def test_the_queue_is_bounded():
    async def check():
        app = App()
        admit = admission(app, concurrency=2, queue=3)
        tasks = [asyncio.create_task(asked(admit)) for _ in range(9)]
        await asyncio.sleep(0.05)
        assert app.running == 2
        refused = [task.result() for task in tasks if task.done()]
        assert [x.status for x in refused] == [429] * 4
        assert {x.code for x in refused} == {"queue_full"}
        assert (b"retry-after", b"1") in refused[0].sent[0]["headers"]
        app.go.set()
        answers = await asyncio.gather(*tasks)
        assert sum(x.status == 200 for x in answers) == 5
        assert admit.present == 0

    run(check)


def test_late_answers_get_504_and_are_cancelled():
    async def check():
        app = App()
        admit = admission(app, seconds=0.05)
        request = await asked(admit)
        assert (request.status, request.code) == (504, "timed_out")
        assert (app.cancelled, app.running, admit.present) == (1, 0, 0)

    run(check)


def test_time_in_the_queue_counts():
    async def check():
        admit = admission(App(), seconds=0.05, concurrency=1)
        both = await asyncio.gather(asked(admit), asked(admit))
        assert [x.status for x in both] == [504, 504]

    run(check)


@pytest.mark.parametrize("by", ["its client", "the server"])
def test_ended_work_is_cancelled(by):
    async def check():
        app, request = App(), Asked()
        admit = admission(app)
        task = asyncio.create_task(
            admit(request.scope, request.receive, request.send)
        )
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

    run(check)


class Slow(Asked):
    """Sends the first part of a body, and the rest when it is let go."""

    def __init__(self, **kwargs):
        super().__init__(parts=(b"{", b"}"), **kwargs)
        self.go = asyncio.Event()
        self.more = asyncio.Event()

    async def receive(self):
        if len(self._parts) == 1:
            self.more.set()
            await self.go.wait()
        return await super().receive()


def slow_clients(admit, count):
    requests = [Slow() for _ in range(count)]
    tasks = [
        asyncio.create_task(admit(x.scope, x.receive, x.send)) for x in requests
    ]
    return requests, tasks


def test_slow_bodies_occupy_no_place():
    async def check():
        app = App()
        app.go.set()
        admit = admission(app, concurrency=2, queue=10)
        slow, tasks = slow_clients(admit, 8)
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            assert (await asked(admit)).status == 200
        assert admit.present == 8
        for one in slow:
            one.go.set()
        await asyncio.gather(*tasks)
        assert [one.status for one in slow] == [200] * 8
        assert admit.present == 0

    run(check)


def test_slow_bodies_get_408():
    async def check():
        admit = admission(App(), body_seconds=0.05)
        [slow], [task] = slow_clients(admit, 1)
        await task
        assert (slow.status, slow.code) == (408, "body_timed_out")
        assert (b"connection", b"close") in slow.sent[0]["headers"]
        assert admit.present == 0

    run(check)


def test_the_slowest_bodies_make_room_for_new_requests():
    async def check():
        app = App()
        app.go.set()
        admit = admission(app, concurrency=1, queue=3)
        slow, tasks = slow_clients(admit, 4)
        await asyncio.sleep(0.01)
        assert (await asked(admit)).status == 200
        await tasks[0]
        assert (slow[0].status, slow[0].code) == (429, "queue_full")
        for one in slow:
            one.go.set()
        await asyncio.gather(*tasks)
        assert [one.status for one in slow[1:]] == [200] * 3

    run(check)


def test_the_memory_of_bodies_is_bounded():
    async def check():
        app = App()
        # Together as many bytes as the requests that are worked on may have.
        admit = admission(app, concurrency=1, queue=10, body_bytes=10)
        first = asyncio.create_task(asked(admit, parts=[b"x" * 8]))
        await asyncio.sleep(0.01)
        second = await asked(admit, parts=[b"x" * 4, b""])
        assert (second.status, second.code) == (429, "queue_full")
        app.go.set()
        assert (await first).status == 200
        assert (await asked(admit, parts=[b"x" * 8])).status == 200

    run(check)


def test_client_disconnects_before_its_body_ends():
    async def check():
        app = App()
        admit = admission(app)
        sent = []

        async def leave():
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await admit(Asked().scope, leave, send)
        assert (sent, app.running, admit.present) == ([], 0, 0)

    run(check)


def test_body_size_is_limited_with_and_without_length():
    async def check():
        admit = admission(App(), body_bytes=10)
        declared = await asked(admit, headers=[(b"content-length", b"11")])
        undeclared = await asked(admit, parts=[b"12345", b"67890", b"1"])
        wrong = await asked(admit, headers=[(b"content-length", b"-1")])
        for request in (declared, undeclared, wrong):
            assert (request.status, request.code) == (413, "too_large")

    run(check)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Bearer key", 200),
        (b"bearer key", 200),
        (b"BEARER  key ", 200),
        (b"key", 401),
        (b"Basic key", 401),
        (b"Bearerkey", 401),
        (b"Bearer Bearer key", 401),
        (b"Bearer Key", 401),
        (b"Bearer", 401),
        (b"", 401),
        (b"\xff", 401),
    ],
)
def test_the_key_needs_the_bearer_scheme(header, status):
    async def check():
        app = App()
        app.go.set()
        admit = admission(app)
        headers = [(b"authorization", header)]
        request = await asked(admit, headers=headers)
        assert request.status == status
        if status == 401:
            assert request.code == "invalid_api_key"
        health = await asked(admit, "/health", headers=headers)
        assert health.status == 200

    run(check)


KNOWN = ("localhost:8000", "LocalHost", "127.0.0.1:8000", "[::1]:8000", "[::1]")
REBOUND = (
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example:8000",
    "localhost@evil.example",
    "evil.example#localhost",
    "localhost:8000:9000",
    "2130706433",
    "[evil.example]",
    "",
)


@pytest.mark.parametrize("path", ["/v1/answer", "/health"])
@pytest.mark.parametrize(
    ("key", "hosts", "host", "status"),
    [
        *((None, (), host, 200) for host in KNOWN),
        *((None, (), host, 403) for host in REBOUND),
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
def test_hosts_that_are_answered(path, key, hosts, host, status):
    async def check():
        app = App()
        app.go.set()
        admit = admission(app, key, hosts)
        request = await asked(admit, path, [(b"host", host.encode())])
        assert request.status == status
        if status == 403:
            assert request.code == "unknown_host"
            assert app.running == 0

    run(check)


def test_each_of_two_host_headers_is_checked():
    async def check():
        headers = [(b"host", b"evil.example"), (b"host", b"localhost")]
        request = await asked(admission(App(), None), headers=headers)
        assert request.status == 403

    run(check)


def test_draining_rejects_requests():
    async def check():
        app = App()
        admit = admission(app)
        task = asyncio.create_task(asked(admit))
        await asyncio.sleep(0.01)
        admit.draining = True
        assert (await asked(admit)).status == 503
        assert (await asked(admit, "/ready")).status == 503
        app.go.set()
        assert (await task).status == 200

    run(check)


def test_unexpected_errors_hide_their_message(caplog):
    async def check():
        async def app(scope, receive, send):
            raise KeyError("/home/secret")

        request = await asked(admission(app))
        assert (request.status, request.code) == (500, "internal_error")
        assert b"secret" not in request.sent[1]["body"]
        assert "secret" in caplog.text

    run(check)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"queue": 0}, "queue"),
        ({"seconds": 0}, "seconds"),
        ({"body_seconds": 0}, "body_seconds"),
        ({"request_pixels": 0}, "request_pixels"),
        ({"seconds": float("nan")}, "seconds"),
        ({"picture_seconds": -1}, "picture_seconds"),
        ({"picture_hosts": "example.org"}, "picture_hosts"),
        ({"picture_hosts": ("https://example.org",)}, "picture_hosts"),
    ],
)
def test_invalid_limits_are_rejected(values, named):
    with pytest.raises(ValueError, match=f"`{named}`.*Received: {named}="):
        Limits(**values)
