"""Test that hostile requests are rejected, without fetching or writing."""

import concurrent.futures
import contextlib
import socket
import threading
import time
import urllib.parse

import hostile
from builders import FASTEST
from served import FUSED
from served import KEY

pytestmark = FASTEST


class Trap:
    """A port of this machine that counts who connects."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self):
        self._listening.close()


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_hostile_requests(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("a file that exists")
    before = files_in(tmp_path)
    trap = Trap()
    every = hostile.requests(trap.port)
    assert len(every) >= 200
    wrong = {}
    for one in every:
        problem_found = hostile.problem(one, hostile.send(client, one))
        if problem_found:
            wrong[one.name] = problem_found
    trap.close()
    assert not wrong
    assert trap.connections == 0
    assert files_in(tmp_path) == before
    # It answers as before, and nothing is left of the refused ones.
    good = client.post("/v1/embeddings", json={"input": "a", "model": FUSED})
    assert good.status_code == 200
    assert server.admission.present == 0


def test_slow_bodies_delay_no_other_request(server, client):
    """More connections than turns each send the start of a body."""
    parts = urllib.parse.urlsplit(server.url)
    address = (parts.hostname, parts.port)
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nhost: here\r\n"
        b"content-type: application/json\r\nauthorization: Bearer %s\r\n"
        b"content-length: 100\r\n\r\n{"
    ) % KEY.encode()
    before = server.admission.present
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            slow = stack.enter_context(socket.create_connection(address))
            slow.sendall(head)
        while server.admission.present < before + 200:
            time.sleep(0.01)
        started = time.monotonic()
        body = {"input": "a", "model": FUSED}
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 200
        # Less than the time of a body: it has waited for none of them.
        assert time.monotonic() - started < 5
    until = time.monotonic() + 20
    while server.admission.present:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_slow_pictures_delay_no_other_request(server, client):
    """Pictures that take seconds, more than there are processes to decode."""
    slow = [
        b"P3 %d 900 255\n" % side + b"9 " * (3 * side * 900)
        for side in range(900, 906)
    ]
    good = hostile.in_base64(hostile.good_picture())
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
