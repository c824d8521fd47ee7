"""The supervisor of the workers, without any model."""

import os
import signal
import socket

import pytest
from builders import FASTEST
from refusing import refuse
from served import FUSED

pytest.importorskip("uvicorn", reason="the extra `serve`")

from keras_bridgetower.serve import on_uvicorn
from keras_bridgetower.serve.plan import Plan

pytestmark = FASTEST


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
