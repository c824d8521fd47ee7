"""Test the supervisor of the workers, without models."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest
from builders import FASTEST
from refusing import refuse
from served import FUSED

pytest.importorskip("uvicorn", reason="the extra `serve`")

import httpx
import uvicorn
from uvicorn.supervisors.multiprocess import SIGNALS

from keras_bridgetower import startup
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.apps.serve.protocol import http_settings
from keras_bridgetower.apps.serve.service import COUNTS
from keras_bridgetower.apps.serve.workers import Supervisor
from keras_bridgetower.apps.serve.workers import run

pytestmark = FASTEST


@pytest.fixture(autouse=True)
def same_signals():
    """Restore the signal handlers that uvicorn replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def supervised(app, folder, monkeypatch, ready=lambda: None):
    """A supervisor of one worker, and the address of its port."""
    monkeypatch.setenv(COUNTS, str(folder))
    config = uvicorn.Config(
        app, workers=1, log_level="error", timeout_worker_healthcheck=60
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = http_settings(Limits())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/models"
        yield Supervisor(config, listening, ready, settings), url


def test_worker_killed_during_health_check_is_replaced(tmp_path, monkeypatch):
    # Asked for a sign of life it is given a minute, as it may be at work.
    ready = threading.Event()
    with supervised("refusing:answer", tmp_path, monkeypatch, ready.set) as (
        workers,
        _,
    ):
        workers.init_processes()
        try:
            while not ready.is_set():
                workers.keep_subprocess_alive()
                time.sleep(0.1)
            (first,) = workers.processes
            os.kill(first.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
            # It answers no more. On a full machine an earlier sign of life
            # comes after it was waited for.
            while first.parent_conn.poll():
                first.parent_conn.recv()
            asked = threading.Thread(target=workers.keep_subprocess_alive)
            asked.start()
            time.sleep(0.5)
            assert asked.is_alive()
            os.kill(first.pid, signal.SIGKILL)
            asked.join(20)
            assert not asked.is_alive()
            (second,) = workers.processes
            assert second.pid != first.pid
            assert second.is_alive(60)
        finally:
            for process in workers.processes:
                process.kill()
                process.join()


def test_requests_are_refused_while_no_worker_is_loaded(tmp_path, monkeypatch):
    loaded = tmp_path / "loaded"
    monkeypatch.setenv("LOADED", str(loaded))
    with supervised("refusing:answer_once_loaded", tmp_path, monkeypatch) as (
        workers,
        url,
    ):

        def asked_until(status):
            # Each request is answered at once, also by a busy machine.
            until = time.monotonic() + 120
            body = b"x" * 1_000_000
            while True:
                answer = httpx.post(url, content=body, timeout=20)
                if answer.status_code == status:
                    return answer
                assert time.monotonic() < until
                time.sleep(0.1)

        supervising = threading.Thread(target=workers.run)
        supervising.start()
        try:
            for _ in range(2):
                answer = asked_until(503)
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["error"]["code"] == "not_ready"
                loaded.touch()
                assert asked_until(200).text == "loaded"
                loaded.unlink()
                os.kill(workers.processes[0].pid, signal.SIGKILL)
        finally:
            loaded.touch()
            workers.should_exit.set()
            supervising.join(60)
        assert not supervising.is_alive()


def test_a_preset_that_cannot_be_loaded_ends_the_server(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name in (COUNTS, startup.SERVER):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match="must be whole. Received: half of it"):
        run(Plan((FUSED,)), "127.0.0.1", port, print, refuse)
    # The port is free again.
    socket.create_server(("127.0.0.1", port)).close()
