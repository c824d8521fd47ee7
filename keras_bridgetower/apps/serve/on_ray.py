"""Runs the server on this machine by Ray Serve, until it is told to stop."""

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
# Of Ray itself, for messages between processes: pictures are small.
_SHARED_MEMORY = 200 * 2**20
# Set before Ray is imported. Nothing is reported to its makers.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own ports answer only who has the token in this user's home.
    "RAY_AUTH_MODE": "token",
    **IMPORTS_LATE,
    # A busy machine takes longer than the 5 seconds that Ray waits.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # What fails to load once fails again.
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1",
    # One event loop in each process, and messages without a store between:
    # models run in a thread, and no route computes for long.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Ray would let all other programs go first.
    "RAY_worker_niceness": "0",
    # Ray would give each process one thread.
    "OMP_NUM_THREADS": str(os.cpu_count()),
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """What this process prints of what Ray and its processes say.

    Args:
        level: str, the least level of the log lines of Ray and Ray Serve.
        processes: bool, whether what the processes print is shown too, with
            the tracebacks and lines of their frameworks. Else it is only in
            the files of Ray's session.
    """

    level: str
    processes: bool


ERRORS = Shown("ERROR", processes=False)
EVERYTHING = Shown("INFO", processes=True)


def run(plan, host, port, ready=None, shown=ERRORS):
    """Serve until SIGTERM or SIGINT, then answer what has come, and return.

    Args:
        plan: `Plan`.
        host: str, the address that is listened on.
        port: int.
        ready: callable without arguments, called when all models are warm.
        shown: `Shown`.

    Raises:
        ImportError: the extra `serve` or `ray` is not installed.
        OSError: the port is in use.
        ValueError: a preset that cannot be served.
    """
    check_installed(HTTP, RAY)
    # Ray itself opens the port later.
    with listening(host, port):
        pass
    # Refuses an index that does not fit before anything is started.
    plan.searched()
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(_environment(shown)))
        stack.enter_context(_ray(plan, shown))
        # After Ray, which would print where each signal was received.
        stack.enter_context(_told_to_stop(stop))
        handle = _served(plan, host, port, shown)
        if ready is not None and not stop.is_set():
            ready()
        stop.wait()
        asyncio.run(_drained(handle, plan.limits.seconds))


def _environment(shown):
    """Variables of Ray and its processes, where the user has set none."""
    # Ray Serve's own lines, beside those that its processes print.
    own_lines = "1" if shown.processes else "0"
    return _ENVIRONMENT | {"RAY_SERVE_LOG_TO_STDERR": own_lines}


async def _drained(handle, seconds):
    """Wait until all requests that have come are answered."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await handle.drain.remote()


@contextlib.contextmanager
def _told_to_stop(stop):
    """Signals set an event, in place of ending this process."""
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
    """A Ray of our own on this machine, ended with us."""
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
    """The handle of the application, which runs until Ray ends."""
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
    """The handle of an application, or what a preset said when it failed."""
    from ray import serve

    try:
        return serve.run(application, name=_NAME)
    except RuntimeError as error:
        # Ray keeps the traceback of the process that failed.
        deployments = serve.status().applications[_NAME].deployments
        told = [one.message for one in deployments.values()]
        found = _ERROR.findall("\n".join(told))
        if not found:
            raise
        raise ValueError(found[-1]) from error
