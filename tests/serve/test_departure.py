"""Test that work ends when its client disconnects."""

import json
import socket
import time
import urllib.parse

from builders import FASTEST
from served import FUSED
from served import KEY

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
