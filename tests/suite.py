"""Set up before anything is imported: quiet frameworks, few threads."""

import os
import re
import sys
import tempfile

import without_preset_packages  # noqa: F401
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# Commands would export each preset that they open.
os.environ.setdefault("KERAS_BRIDGETOWER_EXPORTED", "0")
# The passes share the cores, on which OpenMP's threads would wait busily for
# each other: the same test took eight times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# XLA compiles far more here than it computes. Unoptimised it does so in half
# the time on JAX, as in JAX's own tests, and in four fifths on TensorFlow; the
# second one holds for tests that set XLA_FLAGS for several devices too. With
# `-m slow` it optimises, as for users.
SLOW = any(argument.startswith("slow") for argument in sys.argv)
if not SLOW:
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
    )
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Where pytest keeps no cache.
COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")


def pytest_xdist_auto_num_workers(config):
    """Two processes for the whole suite on PyTorch, else one.

    A few tests start no faster in two, and JAX and TensorFlow share the cores.
    """
    named = config.args_source is config.ArgsSource.ARGS
    torch = os.environ.get("KERAS_BACKEND") == "torch"
    return 2 if torch and not named else 0


# The backend that alone runs a module whose `pytestmark` begins so.
ALONE = {"FASTEST": "torch", "ONE_BACKEND": "tensorflow"}
if not SLOW:
    ALONE["LONG_ELSEWHERE"] = "torch"
MARKED = re.compile(r"^pytestmark = \[?\s*(?:builders\.)?(\w+)", re.M)


def pytest_ignore_collect(collection_path, config):
    """Import no file, unless it is named, of which nothing would run."""
    backend = os.environ.get("KERAS_BACKEND")
    named = config.args_source is config.ArgsSource.ARGS
    if named or not backend or collection_path.suffix != ".py":
        return None
    found = MARKED.search(collection_path.read_text(encoding="utf-8"))
    alone = ALONE.get(found and found[1], backend)
    return True if alone != backend else None


# Files that share what takes long to start, and such as would be the last.
TOGETHER = (
    r"serve/test_(clients|hostile|refusals|shapes)\.",
    r"training/test_(distribution|ranks|survival)\.",
    r"/test_(package|photo_package|processes|without_apps)\.",
)


class Together(LoadFileScheduling):
    """Gives those files to one process."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return next((p for p in TOGETHER if re.search(p, file)), file)


def pytest_xdist_make_scheduler(config, log):
    if config.getvalue("dist") == "loadfile":
        return Together(config, log)
    return None


def pytest_configure(config):
    """Import the frameworks, but not where others run the tests.

    JAX keeps what it compiled for the processes that the tests start, and for
    the next run, which takes half as long.
    """
    cache = getattr(config, "cache", None)
    compiled = cache.mkdir("compiled") if cache else COMPILED.name
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
    if hasattr(config, "workerinput") or not config.option.numprocesses:
        config.pluginmanager.import_plugin("around_tests")
