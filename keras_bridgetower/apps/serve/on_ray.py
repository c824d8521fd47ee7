"""Run the server on this machine with Ray Serve, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import threading

from keras_bridgetower.apps.serve.starting import HTTP
from keras_bridgetower.apps.serve.starting import IMPORTS_LATE
from keras_bridgetower.apps.serve.starting import RAY
from keras_bridgetower.apps.serve.starting import check_installed
from keras_bridgetower.apps.serve.starting import environment
from keras_bridgetower.apps.serve.starting import listening

_NAME = "keras-bridgetower"
# The last line of a traceback.
_ERROR = re.compile(r"^(?:[\w.]+(?:Error|Exception)): (.+)$", re.M)
# Bytes for Ray's own messages between processes: pictures are small.
_SHARED_MEMORY = 200 * 2**20
# Set before Ray is imported. No usage statistics are sent.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own ports require the token in this user's home folder.
    "RAY_AUTH_MODE": "token",
    **IMPORTS_LATE,
    # A busy machine needs more than the default 5 seconds.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # A preset that fails to load once would fail again.
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1",
    # One event loop in each process, and direct messages: models run in a
    # thread, and no route computes for long.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # By default Ray gives all other programs priority.
    "RAY_worker_niceness": "0",
    # By default Ray gives each process one thread.
    "OMP_NUM_THREADS": str(os.cpu_count()),
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """The output of Ray and its processes that this process prints.

    Args:
        level: str, the minimum level of log lines of Ray and Ray Serve.
        processes: bool, whether to print the output of the processes too,
            with tracebacks and lines of their frameworks. Otherwise it is
            only in the files of Ray's session.
    """

    level: str
    processes: bool


ERRORS = Shown("ERROR", processes=False)
EVERYTHING = Shown("INFO", processes=True)


def run(plan, host, port, ready=None, shown=ERRORS):
    """Serve until SIGTERM or SIGINT, answer the requests present, and return.

    Args:
        plan: `Plan`.
        host: str, the address to listen on.
        port: int.
        ready: callable without arguments, called when all models are warm.
        shown: `Shown`.

    Raises:
        ImportError: the extra `serve` or `ray` is not installed.
        OSError: the port is in use.
        ValueError: a preset that cannot be served.
    """
    check_installed(HTTP, RAY)
    # Only checks the port, which Ray opens later.
    with listening(host, port):
        pass
    # Rejects an unsuitable index before any process starts.
    plan.searched()
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(_environment(shown)))
        stack.enter_context(_ray(plan, shown))
        # After Ray, which would print a trace for each signal.
        stack.enter_context(_stopped_by_signals(stop))
        handle = _served(plan, host, port, shown)
        if ready is not None and not stop.is_set():
            ready()
        stop.wait()
        asyncio.run(_drained(handle, plan.limits.seconds))


def _environment(shown):
    """Return environment variables for Ray and its processes."""
    # Ray Serve's own lines, besides those of its processes.
    own_lines = "1" if shown.processes else "0"
    return _ENVIRONMENT | {"RAY_SERVE_LOG_TO_STDERR": own_lines}


async def _drained(handle, seconds):
    """Wait until all received requests are answered."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await handle.drain.remote()


@contextlib.contextmanager
def _stopped_by_signals(stop):
    """Make SIGTERM and SIGINT set an event instead of ending this process."""
    handlers = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ray(plan, shown):
    """Run an own Ray on this machine; it ends with this process."""
    import ray

    processes = plan.replicas * len(plan.presets)
    ray.init(
        address="local",
        num_cpus=max(processes, os.cpu_count()),
        include_dashboard=False,
        log_to_driver=shown.processes,
        object_store_memory=_SHARED_MEMORY,
        logging_level=shown.level.lower(),
    )
    try:
        yield
    finally:
        ray.shutdown()


def _served(plan, host, port, shown):
    """Start the application, which runs until Ray ends. Return its handle."""
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from keras_bridgetower.apps.serve.deployments import build

    logs = LoggingConfig(log_level=shown.level, enable_access_log=False)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port},
        logging_config=logs,
    )
    return _deployed(build(plan))


def _deployed(application):
    """Deploy an application. Raise the error of a preset that fails."""
    from ray import serve

    try:
        return serve.run(application, name=_NAME)
    except RuntimeError as error:
        # Ray keeps the traceback of the process that failed.
        deployments = serve.status().applications[_NAME].deployments
        messages = [one.message for one in deployments.values()]
        found = _ERROR.findall("\n".join(messages))
        if not found:
            raise
        raise ValueError(found[-1]) from error
