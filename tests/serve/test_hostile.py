"""Test that hostile requests are rejected, without fetching or writing."""

import concurrent.futures
import contextlib
import json
import socket
import socketserver
import threading
import time
import urllib.parse

import hostile
import pytest
import served
from builders import FASTEST
from served import FUSED
from served import KEY

pytestmark = FASTEST


@pytest.fixture
def connections():
    """The addresses that connect to a port of this machine, and the port."""
    found = []

    class Trap(socketserver.BaseRequestHandler):
        def handle(self):
            found.append(self.client_address)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trap) as trap:
        threading.Thread(target=trap.serve_forever, daemon=True).start()
        yield found, trap.server_address[1]
        trap.shutdown()


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_hostile_requests(client, server, connections, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("a file that exists")
    before = files_in(tmp_path)
    connected, port = connections
    every = hostile.requests(port)
    assert len(every) >= 200
    wrong = {}
    for one in every:
        problem_found = hostile.problem(one, hostile.send(client, one))
        if problem_found:
            wrong[one.name] = problem_found
    assert not wrong
    assert not connected
    assert files_in(tmp_path) == before
    # It answers as before, and nothing is left of the refused ones.
    good = client.post("/v1/embeddings", json={"input": "a", "model": FUSED})
    assert good.status_code == 200
    # The client may read an answer before the server has counted it.
    wait_until(lambda: server.admission.present == 0)


def connect(stack, server, body, length):
    """Send a request for embeddings, or the start of one."""
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
    """More connections than turns each send the start of a body."""
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


def test_requests_of_disconnected_clients_end(server, client):
    def gone():
        """Return the number of requests without an answer."""
        lines = client.get("/metrics").text.splitlines()
        lines = [x for x in lines if 'status="499"' in x]
        return sum(float(x.split()[-1]) for x in lines if "_total{" in x)

    before = gone()
    body = {"input": ["a red circle"] * 64, "model": FUSED}
    sent = json.dumps(body).encode()
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            connect(stack, server, sent, len(sent))
    wait_until(lambda: gone() >= before + 3 and not server.admission.present)
    # Its connection, its turn and its place in the queue are free.
    assert client.post("/v1/embeddings", json=body).status_code == 200


def test_slow_pictures_delay_no_other_request(server, client):
    """Pictures that take seconds, more than there are processes to decode."""
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
