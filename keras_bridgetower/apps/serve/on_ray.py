"""Run the server on this machine with Ray Serve, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import os
import signal
import threading

from keras_bridgetower import startup
from keras_bridgetower.apps.hosts import listening

# Bytes for Ray's own messages between processes: pictures are small.
_SHARED_MEMORY = 200 * 2**20
# Set before Ray is imported. No usage statistics are sent.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own ports require the token in this user's home folder.
    "RAY_AUTH_MODE": "token",
    startup.SERVER: "1",
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


def run(plan, host, port, ready, debug):
    """Serve until SIGTERM or SIGINT, answer the requests present, and return.

    Args:
        plan: `Plan`.
        host: str, the address to listen on.
        port: int.
        ready: callable without arguments, called when all models are warm.
        debug: bool, True to print the output of Ray and its processes. It is
            otherwise in the files of Ray's session, except for errors.

    Raises:
        OSError: the port is in use.
        ValueError: an unsuitable index.
    """
    # Only checks the port, which Ray opens later.
    listening(host, port).close()
    # Rejects an unsuitable index before any process starts.
    plan.searched()
    # Ray Serve's own lines, besides those of its processes.
    lines = {"RAY_SERVE_LOG_TO_STDERR": "1" if debug else "0"}
    for name, value in (_ENVIRONMENT | lines).items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from keras_bridgetower.apps.serve.deployments import build

    ray.init(
        address="local",
        num_cpus=max(plan.replicas * len(plan.presets), os.cpu_count()),
        include_dashboard=False,
        log_to_driver=debug,
        object_store_memory=_SHARED_MEMORY,
        logging_level="info" if debug else "error",
    )
    stop = threading.Event()
    try:
        # After Ray, which would print a trace for each signal.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        level = "INFO" if debug else "ERROR"
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port},
            logging_config=LoggingConfig(
                log_level=level, enable_access_log=False
            ),
        )
        handle = serve.run(build(plan), name="keras-bridgetower")
        if not stop.is_set():
            ready()
        stop.wait()
        asyncio.run(_drain(handle, plan.limits.seconds))
    finally:
        ray.shutdown()


async def _drain(handle, seconds):
    """Wait until all received requests are answered."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await handle.drain.remote()
