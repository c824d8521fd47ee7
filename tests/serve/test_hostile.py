"""Test that some 300 hostile requests are rejected, without writing."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import socket
import time
import urllib.parse

from builders import FASTEST
from drawn_photos import png_of
from served import FUSED
from served import KEY
from served import picture

pytestmark = FASTEST


@dataclasses.dataclass(frozen=True)
class Hostile:
    path: str
    body: object
    statuses: tuple = (400,)
    headers: dict = dataclasses.field(default_factory=dict)
    method: str = "POST"


def in_base64(data):
    return base64.b64encode(data).decode()


GOOD = picture()[0]
FILES = (
    *(png_of(32768, 32768), png_of(9000, 9000), png_of(0, 10)),
    *(GOOD[: len(GOOD) // 2], GOOD[:8], b"no picture at all"),
    *(b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg xmlns='http://www.w3.org/svg'/>"),
)
PICTURES = (
    *("=", "!!! not base64 ???", "/etc/passwd", "pyproject.toml"),
    *("data:image/png,%89PNG", *map(in_base64, FILES)),
)
URLS = (
    "http://127.0.0.1:80/private",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
)
BODIES = (
    *(b"", b"{'text': 'a'}", b'{"text": "a"', b"[]", b"null", b"1", b"{}"),
    b'{"text": "\xff\xfe"}',
    b"[" * 100_000 + b"]" * 100_000,
    b'{"text":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"text": ' + b"9" * 10_000 + b"}",
)
EMBED = "/v1/embeddings"
ENOUGH = ["a"] * 10_000
TEXTS = (
    *("a" * 10_000_000, ENOUGH, [], "", ["a", "", "b"], "\ud800", "a\0b"),
    [[1, 2, 3]],
)
PATHS = ("/v1/none", "/%2e%2e/%2e%2e/etc/passwd", "/docs/../../etc/passwd")


def content_of(image):
    url = {"url": f"data:image/png;base64,{image}"}
    return {"content": [{"type": "image_url", "image_url": url}]}


def with_picture(image):
    return {
        EMBED: {"input": [{"image": image}]},
        "/v1/rerank": {"query": "a", "documents": [{"image": image}]},
        "/rerank": {"query": "a", "texts": [f"data:image/png;base64,{image}"]},
        "/v1/score": {"pairs": [{"image": image, "text": "a"}]},
        "/score": {"text_1": "a", "text_2": content_of(image)},
        "/v1/answer": {"image": image, "question": "what?"},
        "/v1/fill": {"image": image, "text": "a <mask>"},
        "/v1/search": {"image": image},
    }


def wrong_values():
    good = with_picture(in_base64(GOOD))
    for path, body in good.items():
        if path != "/v1/search":
            yield path, {**body, "model": "none"}
        for name in body:
            yield from ((path, {**body, name: x}) for x in (7, [], [[]], True))
    for wrong in ("1", 0, 1.5, 10**30, None):
        yield "/v1/answer", {**good["/v1/answer"], "top_k": wrong}
    for name, wrong in (("truncation_direction", "Up"), ("dimensions", 3)):
        yield EMBED, {"input": "a", name: wrong}
    yield "/v1/fill", {**good["/v1/fill"], "text": "a"}
    yield "/v1/score", {"pairs": [{"image": "a", "text": "a"}] * 10_000}
    yield "/v1/rerank", {"query": "a", "documents": ENOUGH}


def requests():
    """All hostile requests."""
    for path in with_picture(""):
        yield from (Hostile(path, body) for body in BODIES)
    for image in (*PICTURES, *URLS):
        yield from (Hostile(*one) for one in with_picture(image).items())
    yield from (Hostile(*one, (400, 404)) for one in wrong_values())
    yield from (Hostile(EMBED, {"input": text}) for text in TEXTS)
    yield Hostile(EMBED, b"x" * 30_000_000, (413,))
    yield Hostile(EMBED, {}, (405,), method="GET")
    yield from (Hostile(path, {}, (404,), method="GET") for path in PATHS)
    yield Hostile(EMBED, {}, (401,), {"Authorization": "Basic a2V5"})
    yield Hostile(EMBED, b"input=a", (415,), {"Content-Type": "text/plain"})


def problem(client, hostile):
    """Send a request; return the problem of its answer, or None."""
    body = hostile.body
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **hostile.headers}
    request = client.build_request(
        hostile.method, "/", content=body, headers=headers
    )
    # As it is written, with its dots.
    request.url = request.url.copy_with(raw_path=hostile.path.encode())
    answer = client.send(request)
    text = answer.text
    if answer.status_code not in hostile.statuses:
        return f"status {answer.status_code}: {text[:300]}"
    if "Traceback" in text or 'File "' in text or os.getcwd() in text:
        return f"tells of the server: {text[:300]}"
    if set(answer.json()["error"]) != {"message", "type", "param", "code"}:
        return f"another shape: {text[:300]}"
    return f"{len(text)} letters" if len(text) > 3000 else None


def test_hostile_requests(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("a file that exists")
    found = [(str(one)[:300], problem(client, one)) for one in requests()]
    assert len(found) >= 200
    assert [pair for pair in found if pair[1]] == []
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]
    # It answers as before, and nothing is left of the refused ones.
    good = client.post("/v1/embeddings", json={"input": "a", "model": FUSED})
    assert good.status_code == 200
    # The client may read an answer before the server has counted it.
    wait_until(lambda: server.admission.present == 0)


def connect(stack, server, body, length):
    parts = urllib.parse.urlsplit(server.url)
    address = (parts.hostname, parts.port)
    connection = stack.enter_context(socket.create_connection(address))
    connection.sendall(
        b"POST /v1/embeddings HTTP/1.1\r\nhost: here\r\n"
        b"content-type: application/json\r\nauthorization: Bearer %s\r\n"
        b"content-length: %d\r\n\r\n%s" % (KEY.encode(), length, body)
    )


def wait_until(is_true):
    until = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_slow_bodies_delay_no_other_request(server, client):
    before = server.admission.present
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connect(stack, server, b"{", 100)
        wait_until(lambda: server.admission.present >= before + 200)
        started = time.monotonic()
        body = {"input": "a", "model": FUSED}
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 200
        # Less than the time of a body: it has waited for none of them.
        assert time.monotonic() - started < 5
    wait_until(lambda: not server.admission.present)


def test_slow_pictures_delay_no_other_request(server, client):
    slow = [
        b"P3 %d 900 255\n" % side + b"9 " * (3 * side * 900)
        for side in range(900, 906)
    ]
    good = picture()[1]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [
            pool.submit(embed, client, in_base64(image)) for image in slow
        ]
        while server.admission.present < len(slow):
            time.sleep(0.01)
        answers = [embed(client, good) for _ in range(3)]
        left = sum(not one.done() for one in waiting)
        assert [answer.status_code for answer in answers] == [200] * 3
        assert left >= 3
        # Each is decoded, or refused for the time that it took.
        assert {one.result().status_code for one in waiting} <= {200, 400}


def embed(client, image):
    body = {"input": [{"image": image}], "model": FUSED}
    return client.post("/v1/embeddings", json=body)
