"""Test the supervisor of the workers, without models."""

import functools
import signal
import socket

import pytest
from builders import FASTEST
from served import FUSED

pytest.importorskip("uvicorn", reason="the extra `serve`")

from uvicorn.supervisors.multiprocess import SIGNALS

from keras_bridgetower import startup
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.apps.serve.service import COUNTS
from keras_bridgetower.apps.serve.workers import run

pytestmark = FASTEST


@pytest.fixture(autouse=True)
def same_signals():
    """Restore the signal handlers that uvicorn replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_preset_that_cannot_be_loaded_ends_the_server(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name in (COUNTS, startup.SERVER):
        monkeypatch.setenv(name, "1")
    load = functools.partial(int, "no preset")
    with pytest.raises(ValueError, match="invalid literal .* 'no preset'"):
        run(Plan((FUSED,)), "127.0.0.1", port, print, load)
    # The port is free again.
    socket.create_server(("127.0.0.1", port)).close()
