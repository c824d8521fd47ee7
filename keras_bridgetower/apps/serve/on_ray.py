"""Run the server on this machine with Ray Serve, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import os
import re
import signal
import threading

from keras_bridgetower.apps.serve.starting import IMPORTS_LATE
from keras_bridgetower.apps.serve.starting import check_installed
from keras_bridgetower.apps.serve.starting import environment
from keras_bridgetower.apps.serve.starting import listening
from keras_bridgetower.apps.serve.starting import same_signals

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


def run(plan, host, port, ready=lambda: None, debug=False):
    """Serve until SIGTERM or SIGINT, answer the requests present, and return.

    Args:
        plan: `Plan`.
        host: str, the address to listen on.
        port: int.
        ready: callable without arguments, called when all models are warm.
        debug: bool, whether to print the output of Ray and its processes,
            which is otherwise only in the files of Ray's session, but for
            errors.

    Raises:
        ImportError: the extra `serve` or `ray` is not installed.
        OSError: the port is in use.
        ValueError: a preset that cannot be served.
    """
    check_installed("serve", "ray")
    # Only checks the port, which Ray opens later.
    listening(host, port).close()
    # Rejects an unsuitable index before any process starts.
    plan.searched()
    stop = threading.Event()
    # Ray Serve's own lines, besides those of its processes.
    lines = {"RAY_SERVE_LOG_TO_STDERR": "1" if debug else "0"}
    with environment(_ENVIRONMENT | lines), _ray(plan, debug), same_signals():
        # After Ray, which would print a trace for each signal.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        handle = _served(plan, host, port, debug)
        if not stop.is_set():
            ready()
        stop.wait()
        asyncio.run(_drained(handle, plan.limits.seconds))


async def _drained(handle, seconds):
    """Wait until all received requests are answered."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await handle.drain.remote()


@contextlib.contextmanager
def _ray(plan, debug):
    """Run an own Ray on this machine; it ends with this process."""
    import ray

    processes = plan.replicas * len(plan.presets)
    ray.init(
        address="local",
        num_cpus=max(processes, os.cpu_count()),
        include_dashboard=False,
        log_to_driver=debug,
        object_store_memory=_SHARED_MEMORY,
        logging_level="info" if debug else "error",
    )
    try:
        yield
    finally:
        ray.shutdown()


def _served(plan, host, port, debug):
    """Start the application, which runs until Ray ends. Return its handle.

    Raises the error of a preset that fails.
    """
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from keras_bridgetower.apps.serve.deployments import build

    level = "INFO" if debug else "ERROR"
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port},
        logging_config=LoggingConfig(log_level=level, enable_access_log=False),
    )
    try:
        return serve.run(build(plan), name=_NAME)
    except RuntimeError as error:
        # Ray keeps the traceback of the process that failed.
        deployments = serve.status().applications[_NAME].deployments
        messages = [one.message for one in deployments.values()]
        found = _ERROR.findall("\n".join(messages))
        if not found:
            raise
        raise ValueError(found[-1]) from error
