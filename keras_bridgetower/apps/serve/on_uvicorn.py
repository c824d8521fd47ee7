"""Run the server on this machine with uvicorn, until SIGTERM or SIGINT.

Each worker is a process with the application and the models of all presets. A
supervisor replaces workers that die. On SIGTERM it closes the port and stops
the workers, which first answer the requests that they have, for at most
`Limits.seconds`.
"""

import contextlib
import multiprocessing
import os
import tempfile

from keras_bridgetower.apps.serve.starting import COUNTS
from keras_bridgetower.apps.serve.starting import IMPORTS_LATE
from keras_bridgetower.apps.serve.starting import check_installed
from keras_bridgetower.apps.serve.starting import environment
from keras_bridgetower.apps.serve.starting import import_package
from keras_bridgetower.apps.serve.starting import listening
from keras_bridgetower.apps.serve.starting import same_signals

# Seconds without a response after which a worker counts as dead.
_SILENT = 60


def run(plan, host, port, ready=lambda: None, load=import_package):
    """Serve until SIGTERM or SIGINT, answer the requests present, and return.

    Args:
        plan: `Plan`. Each of its `replicas` is a worker.
        host: str, the address to listen on.
        port: int.
        ready: callable without arguments, called when all models are warm.
        load: picklable callable without arguments that imports the package.
            Each worker calls it first.

    Raises:
        ImportError: the extra `serve` is not installed.
        OSError: the port is in use.
        ValueError: a preset that cannot be served.
    """
    check_installed("serve")
    # Rejects an unsuitable index before any process starts.
    plan.searched()
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(listening(host, port))
        counts = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(environment(_environment(plan.replicas, counts)))
        stack.enter_context(same_signals())
        _supervise(plan, opened, ready, load)


def _environment(workers, counts):
    """Return environment variables for the workers."""
    values = IMPORTS_LATE | {COUNTS: counts}
    if workers > 1:
        # As many threads in all as cores.
        threads = max(1, os.cpu_count() // workers)
        values["OMP_NUM_THREADS"] = str(threads)
    return values


def _supervise(plan, opened, ready, load):
    """Run the workers until a signal, or until one fails to load."""
    import uvicorn

    from keras_bridgetower.apps.serve.protocol import http_settings
    from keras_bridgetower.apps.serve.workers import Supervisor
    from keras_bridgetower.apps.serve.workers import Worker

    settings = http_settings(plan.limits)
    failed = multiprocessing.get_context("spawn").SimpleQueue()
    config = uvicorn.Config(
        Worker(plan, load, failed),
        factory=True,
        workers=plan.replicas,
        timeout_worker_healthcheck=_SILENT,
        **settings,
    )
    Supervisor(config, opened, ready, settings).run()
    if not failed.empty():
        raise ValueError(failed.get())
