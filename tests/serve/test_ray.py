"""The command itself, with Ray: right answers under load, a kill, a stop."""

import asyncio
import signal
import time

import pytest
from builders import FASTEST

pytest.importorskip("ray", reason="the extra `serve`")
pytest.importorskip("httpx", reason="comes with the tests")

import httpx
import load_server

# Ray alone takes some 10 seconds to start, and half a minute on a busy machine.
pytestmark = [FASTEST, pytest.mark.slow]


@pytest.fixture(scope="module")
def asked():
    return load_server.questions()


@pytest.fixture(scope="module")
def expected(asked):
    return load_server.offline(asked, 32)[0]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    log = tmp_path_factory.mktemp("ray") / "log"
    with open(log, "w") as file, load_server.server(file) as (url, process):
        yield url
        # Requests that have come are answered.
        body = {"input": [f"a red circle {n}" for n in range(200)]}
        status = asyncio.run(stopped(url, process, body))
        assert status == 200
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()


async def stopped(url, process, body):
    async with httpx.AsyncClient(timeout=120) as http:
        task = asyncio.create_task(http.post(f"{url}/v1/embeddings", json=body))
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        return (await task).status_code


def loaded(url, asked, expected, clients, requests, **more):
    return asyncio.run(
        load_server.load(url, asked, expected, clients, requests, **more)
    )


def test_64_clients_get_their_own_answers(url, asked, expected):
    found = loaded(url, asked, expected, 64, 256)
    assert found["statuses"] == {200: 256}
    assert found["wrong"] == 0


def test_more_than_the_queue_is_refused(url, asked, expected):
    found = loaded(url, asked, expected, 400, 800)
    assert set(found["statuses"]) == {200, 429}
    assert found["wrong"] == 0


def test_a_killed_process_comes_back(url, asked, expected):
    before = load_server.processes()
    found = loaded(
        url, asked, expected, 8, 400, meanwhile=load_server.kill_worker
    )
    assert found["wrong"] == 0
    # Those that it had are asked again, or told to try again.
    assert set(found["statuses"]) <= {200, 503, 504}
    until = time.monotonic() + 120
    while not load_server.answers(url) and time.monotonic() < until:
        time.sleep(0.5)
    assert load_server.answers(url)
    assert set(load_server.processes()) != set(before)
    found = loaded(url, asked, expected, 8, 64)
    assert found["statuses"] == {200: 64}
