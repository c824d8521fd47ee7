"""Test the command: correct answers under load, after a kill, at a stop."""

import asyncio
import contextlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from builders import FASTEST

pytest.importorskip("uvicorn", reason="the extra `serve`")
pytest.importorskip("aiohttp", reason="the extra `object_stores`")

import load_server

# The processes take some 10 seconds to start, and minutes on a busy machine.
pytestmark = [FASTEST, pytest.mark.slow]
WORKERS = 2
RAY_RUN = pathlib.Path(__file__).with_name("ray_run.py")


@pytest.fixture(scope="module")
def asked():
    return load_server.questions()


@pytest.fixture(scope="module")
def expected(asked):
    return load_server.Offline(asked, load_server.KINDS).vectors


@pytest.fixture(scope="module", params=["uvicorn", "ray"])
def running(request, tmp_path_factory):
    """The address and the process of a server with two workers."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="the extra `ray`")
        with on_ray() as running:
            yield running
        return
    log = tmp_path_factory.mktemp("serve") / "log"
    # No request is late, however busy the machine is.
    options = ["--replicas", str(WORKERS), "--seconds", "300"]
    with (
        open(log, "w") as file,
        load_server.server(file, *options) as (url, process),
    ):
        yield url, process
        # Requests that have come are answered.
        bodies = [{"input": [f"a red circle {n}"] * 50} for n in range(8)]
        assert asyncio.run(stopped(url, process, bodies)) == [200] * 8
    assert process.returncode == 0
    words = log.read_text()
    assert "Traceback" not in words
    # Only our own two lines, and the message about the kill.
    assert len(words.splitlines()) <= 3, words


@contextlib.contextmanager
def on_ray():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [RAY_RUN, load_server.PRESET, str(port), str(WORKERS)]
    with subprocess.Popen([sys.executable, *words]) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            load_server.wait(url, process)
            yield url, process
        finally:
            process.send_signal(signal.SIGTERM)


async def stopped(url, process, bodies):
    async with load_server.session() as client:
        tasks = [
            asyncio.create_task(
                load_server.post(
                    client, url + load_server.ROUTE, json.dumps(body).encode()
                )
            )
            for body in bodies
        ]
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        return [status for status, _ in await asyncio.gather(*tasks)]


def loaded(url, asked, expected, clients, requests, **more):
    load = load_server.load
    count = range(requests)
    return asyncio.run(load(url, asked, expected, clients, count, **more))


def counted(url):
    """Requests for embeddings that were answered, by all workers."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    found = re.search(
        r'requests_total\{route="/v1/embeddings",status="200"\} (\S+)', page
    )
    return float(found[1]) if found else 0


def test_64_clients_get_their_own_answers(running, asked, expected):
    url, _ = running
    before = counted(url)
    found = loaded(url, asked, expected, 64, 256)
    assert found["statuses"] == {200: 256}
    assert found["wrong"] == 0
    assert counted(url) == before + 256


def test_killed_processes_are_replaced(running, asked, expected):
    url, process = running
    before = load_server.processes(process.pid)
    kill = load_server.killed(process.pid)
    found = loaded(url, asked, expected, 8, 400, also=[kill])
    assert found["wrong"] == 0
    # Ray asks again for those that the process had. With uvicorn their
    # connections end.
    lost = {"ServerDisconnectedError", "ClientOSError", "ClientPayloadError"}
    assert set(found["statuses"]) <= {200, 503, 504} | lost
    assert sum(found["statuses"].get(name, 0) for name in lost) <= 8
    until = time.monotonic() + 120
    while set(load_server.processes(process.pid)) <= set(before):
        assert time.monotonic() < until
        time.sleep(0.5)
    while not load_server.answers(url) and time.monotonic() < until:
        time.sleep(0.5)
    found = loaded(url, asked, expected, 8, 64)
    assert found["statuses"] == {200: 64}
    assert found["wrong"] == 0
