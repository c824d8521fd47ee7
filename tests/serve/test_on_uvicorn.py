"""The supervisor of the workers, without any model."""

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

import uvicorn

from keras_bridgetower.serve import on_uvicorn
from keras_bridgetower.serve.environment import COUNTS
from keras_bridgetower.serve.plan import Plan
from keras_bridgetower.serve.supervisor import Supervisor

pytestmark = FASTEST


def test_a_worker_killed_while_it_is_asked_is_replaced_at_once(
    tmp_path, monkeypatch
):
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
        workers = Supervisor(config, listening, ready.set)
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
