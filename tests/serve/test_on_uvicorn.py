"""Test the supervisor of the workers, without models."""

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

from keras_bridgetower.apps.serve import on_uvicorn
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.apps.serve.protocol import http_settings
from keras_bridgetower.apps.serve.starting import COUNTS
from keras_bridgetower.apps.serve.workers import Supervisor

pytestmark = FASTEST


def test_worker_killed_during_health_check_is_replaced(tmp_path, monkeypatch):
    # Asked for a sign of life it is given a minute, as it may be at work.
    monkeypatch.setenv(COUNTS, str(tmp_path))
    config = uvicorn.Config(
        "refusing:answer",
        workers=1,
        log_level="error",
        timeout_worker_healthcheck=60,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ready = threading.Event()
        settings = http_settings(Limits())
        workers = Supervisor(config, listening, ready.set, settings)
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
    monkeypatch.setenv(COUNTS, str(tmp_path))
    monkeypatch.setenv("LOADED", str(loaded))
    config = uvicorn.Config(
        "refusing:answer_once_loaded", workers=1, log_level="error"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/models"
        workers = Supervisor(
            config, listening, lambda: None, http_settings(Limits())
        )
        supervising = threading.Thread(target=workers.run)
        supervising.start()
        try:

            def asked_until(status):
                # Each request is answered, at once also by a busy machine:
                # without an answer within 20 s `httpx` raises.
                until = time.monotonic() + 120
                body = b"x" * 1_000_000
                answer = httpx.post(url, content=body, timeout=20)
                while answer.status_code != status:
                    assert time.monotonic() < until
                    time.sleep(0.1)
                    answer = httpx.post(url, content=body, timeout=20)
                return answer

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


def test_a_preset_that_cannot_be_loaded_ends_the_server():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    handler, variables = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with pytest.raises(ValueError, match="must be whole. Received: half of it"):
        on_uvicorn.run(Plan((FUSED,)), "127.0.0.1", port, load=refuse)
    # Nothing is left of it: signals, variables, the port.
    assert signal.getsignal(signal.SIGTERM) is handler
    assert dict(os.environ) == variables
    socket.create_server(("127.0.0.1", port)).close()
