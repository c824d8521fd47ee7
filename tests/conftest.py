"""Set up before the first test: quiet frameworks, torch before TensorFlow."""

import gc
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# The passes share the cores, on which OpenMP's threads would wait busily for
# each other: the same test took eight times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# XLA compiles far more here than it computes. Unoptimised it does so in half
# the time on JAX, as in JAX's own tests, and in four fifths on TensorFlow; the
# first line holds for tests that set XLA_FLAGS for several devices too. JAX
# keeps what it compiled for the processes that the tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)
COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# The peers need torch under every backend, and imported after TensorFlow it
# can crash.
import torch  # noqa: E402, F401, I001
import keras  # noqa: E402
import pytest  # noqa: E402
from keras.src.backend.common import global_state  # noqa: E402
from keras.src.saving import saving_lib  # noqa: E402

# By kind of object, the attributes that Keras passes over as it saves or loads
# one. Keras 3.15 keeps them under another name than it looks for, and finds
# them anew for each layer: an eighth of the time of a test that saves.
SKIPPED = {}


def pytest_xdist_auto_num_workers(config):
    """Two processes for the whole suite on PyTorch, else one.

    A few tests start no faster in two, and JAX and TensorFlow share the cores.
    """
    named = config.args_source is config.ArgsSource.ARGS
    return 0 if named or keras.backend.backend() != "torch" else 2


def pytest_collection_finish():
    """Leave out of garbage collection what was imported, and stays.

    A full one, as each error of `fit` asks for, went through all of it and
    took half a second.
    """
    for kind in ("Layer", "Functional", "Metric", "Optimizer", "Loss"):
        SKIPPED[kind] = saving_lib.get_attr_skipset(kind)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _same_start_of_a_module():
    keras.utils.set_random_seed(7)
    yield
    # What a module leaves for good slows down the collections of later ones.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(7)
    for kind, names in SKIPPED.items():
        key = f"saving_attr_skiplist_{kind}"
        global_state.set_global_attribute(key, names)
    yield
    keras.backend.clear_session(free_memory=False)


FOREIGN = None


def _watch(event, arguments):
    if FOREIGN is None or event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = arguments[event == "socket.connect"]
    host = host[0] if isinstance(host, tuple) else host
    host = host.decode() if isinstance(host, bytes) else host
    if event == "socket.connect" and not isinstance(arguments[1], tuple):
        return  # A socket of Unix.
    if host not in (None, "", "localhost", "::1") and host[:4] != "127.":
        FOREIGN.append(host)
        raise RuntimeError(f"a test asked the network for {host!r}")


sys.addaudithook(_watch)


@pytest.fixture
def loopback_only():
    """Fail a test that asks any other machine, be it in vain."""
    global FOREIGN
    FOREIGN = asked = []
    yield
    FOREIGN = None
    assert not asked
