"""Test that hostile requests are rejected, without writing."""

import concurrent.futures
import contextlib
import socket
import time
import urllib.parse

import hostile
import served
from builders import FASTEST
from served import FUSED
from served import KEY

pytestmark = FASTEST


def test_hostile_requests(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("a file that exists")
    found = [
        (str(one)[:300], hostile.problem(client, one))
        for one in hostile.requests()
    ]
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
    good = served.picture()[1]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [
            pool.submit(embed, client, hostile.in_base64(image))
            for image in slow
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
