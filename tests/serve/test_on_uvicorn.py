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
from keras_bridgetower.apps.serve.service import COUNTS
from keras_bridgetower.apps.serve.workers import Supervisor
from keras_bridgetower.apps.serve.workers import http_settings
from keras_bridgetower.apps.serve.workers import run

pytestmark = FASTEST


@pytest.fixture(autouse=True)
def same_signals():
    """Restore the signal handlers that uvicorn replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_requests_are_refused_while_no_worker_is_loaded(tmp_path, monkeypatch):
    loaded = tmp_path / "may_load"
    monkeypatch.setenv("LOADED", str(loaded))
    monkeypatch.setenv(COUNTS, str(tmp_path))
    # Its worker imports no Keras.
    monkeypatch.setenv(startup.SERVER, "1")
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/models"
    app = "refusing:answer_once_loaded"
    config = uvicorn.Config(app, workers=1, timeout_worker_healthcheck=60)
    workers = Supervisor(config, listening, print, http_settings(Limits()))

    def asked_until(status):
        # Each request is answered at once, also by a busy machine.
        until = time.monotonic() + 120
        body = b"x" * 1_000_000
        while True:
            # A server that ends may close connections before it reads them.
            with contextlib.suppress(httpx.NetworkError, httpx.ProtocolError):
                answer = httpx.post(url, content=body, timeout=20)
                if answer.status_code == status:
                    return answer
            assert time.monotonic() < until
            time.sleep(0.1)

    supervising = threading.Thread(target=workers.run)
    supervising.start()
    try:
        # At last, a worker dies before the supervisor has seen it ready.
        for count in (30, 0, 0):
            answer = asked_until(503)
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "not_ready"
            loaded.touch()
            assert asked_until(200).text == "loaded"
            # The first answer of a worker ends all refusals.
            found = {httpx.get(url).status_code for _ in range(count)}
            assert found <= {200}
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
