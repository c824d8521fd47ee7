"""Run the server on this machine with uvicorn, until SIGTERM or SIGINT.

Each worker is a process with the application and the models of all presets. A
supervisor replaces workers that die; connections wait until a worker is loaded.
On SIGTERM the supervisor closes the port and stops the workers, which first
answer the requests that they have, for at most `Limits.seconds`.
"""

import concurrent.futures
import functools
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import threading

import uvicorn
from prometheus_client import multiprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from keras_bridgetower import startup
from keras_bridgetower.apps.hosts import listening
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.application import application
from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.batching import open_preset
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import served_name
from keras_bridgetower.apps.serve.service import COUNTS
from keras_bridgetower.apps.serve.service import Service
from keras_bridgetower.cores import usable_cores

# Seconds that a connection stays open between two requests: longer than in
# usual proxies, which would otherwise use a closed connection.
_KEEP_ALIVE = 75
# Bytes that are parsed at once. A head may be too long by twice as many.
_PARSED = 2048


def run(plan, host, port, ready, load):
    """Serve until SIGTERM or SIGINT, answer the requests present, and return.

    Args:
        plan: `Plan`. Each of its `replicas` is a worker.
        host: str, the address to listen on.
        port: int.
        ready: callable without arguments, called when all models are warm.
        load: picklable callable without arguments that imports the package.
            Each worker calls it first.

    Raises:
        OSError: the port is in use.
        ValueError: a preset that cannot be served.
    """
    # Rejects an unsuitable index before any process starts.
    plan.searched()
    os.environ[startup.SERVER] = "1"
    if plan.replicas > 1:
        # As many threads in all as cores.
        threads = max(1, usable_cores() // plan.replicas)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    failed = multiprocessing.get_context("spawn").SimpleQueue()
    with (
        listening(host, port) as opened,
        tempfile.TemporaryDirectory() as counts,
    ):
        os.environ[COUNTS] = counts
        config = uvicorn.Config(
            functools.partial(_load, plan, load, failed),
            factory=True,
            workers=plan.replicas,
            # Seconds without a response, after which a worker counts as dead.
            timeout_worker_healthcheck=60,
            **http_settings(plan.limits),
        )
        Supervisor(config, opened, ready).run()
    if not failed.empty():
        raise ValueError(failed.get())


def _load(plan, load, failed):
    """Build the application in a worker, or put the error into `failed`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # SIGTERM ends it at once while it loads.
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        load()
        thread = concurrent.futures.ThreadPoolExecutor(1)
        processes = min(4, max(2, usable_cores() // plan.replicas))
        decoders = Decoders(plan.limits, processes)
        presets = {
            served_name(preset): BatchedPreset(
                *open_preset(plan, preset), plan.limits, thread, decoders
            )
            for preset in plan.presets
        }
    except Exception as error:
        failed.put(str(error))
        sys.exit(STARTUP_FAILURE)
    signal.signal(signal.SIGTERM, before)
    # Excludes the loaded models from garbage collection.
    gc.freeze()
    return local_application(plan, presets, os.environ.get(KEY))


def local_application(plan, presets, key=None):
    """Build the ASGI application for models in the same process.

    Args:
        plan: `Plan`.
        presets: dict of `BatchedPreset` by name, in the order of the plan.
        key: str, the API key that clients must send, or None.
    """

    async def ask(name, verb, inputs):
        return await presets[name].ask(verb, inputs)

    async def missing():
        # All presets are loaded before the first request.
        return []

    facts = [preset.facts() for preset in presets.values()]
    searching = (x.find for x in presets.values() if x.index is not None)
    find = next(searching, None)
    return application(Service(plan, facts, ask, missing, find), key)


def _end_with_parent():
    """Send this process SIGTERM if the supervisor is killed."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


class Supervisor(Multiprocess):
    """Uvicorn's supervisor, which also reports when all workers are ready.

    Args:
        config: `uvicorn.Config`.
        port: socket from which the workers accept connections.
        ready: callable without arguments, called once.
    """

    def __init__(self, config, port, ready):
        super().__init__(config, [port])
        self._ready = ready
        self._reported = False

    def keep_subprocess_alive(self):
        """Replace dead workers; uvicorn calls this twice a second."""
        before = {process.pid for process in self.processes}
        # With a copy of its end of the pipe open, a health check of a worker
        # that has died would wait until its timeout.
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()
        if self.should_exit.is_set():
            return
        for gone in before - {process.pid for process in self.processes}:
            errors.LOG.error(
                "A process of the server died. Another is starting."
            )
            # Its requests no longer count as present.
            multiprocess.mark_process_dead(gone, os.environ[COUNTS])
        if not self._reported and all(x.is_ready() for x in self.processes):
            self._reported = True
            self._ready()

    def terminate_all(self):
        for port in self.sockets:
            port.close()
        super().terminate_all()


def http_settings(limits):
    """Return the arguments of `uvicorn.Config` about connections."""
    return {
        "http": BoundedHead,
        "ws": "none",
        "lifespan": "off",
        # The application logs its errors.
        "log_config": None,
        "log_level": "critical",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _KEEP_ALIVE,
        "timeout_graceful_shutdown": limits.seconds,
    }


class BoundedHead(HttpToolsProtocol):
    """Close connections with endless heads, trailers or late bodies.

    Trailers are read and dropped: uvicorn would add them to the headers after
    these were checked.

    Attributes:
        head_bytes: int, bytes of a first line and headers, of trailers, or of
            the extensions of a chunk.
        head_seconds: number, time from the connection, or from the first byte
            of a later request, to the end of the head; time for trailers; and
            time for the rest of a body after an early response.
    """

    head_bytes = 65_536
    head_seconds = 20
    _late = None
    _in_body = False
    # Bytes received since the last part of a body or end of a head.
    _unparsed = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self._begin(self._refuse)

    def on_message_begin(self):
        super().on_message_begin()
        self._in_body = False
        self._begin(self._refuse)

    def on_header(self, name, value):
        if not self._in_body:
            super().on_header(name, value)
        elif self._late is None:
            self._begin(self._refuse)

    def data_received(self, data):
        # The parser reads all that it gets before it can be stopped.
        for start in range(0, len(data), _PARSED):
            part = data[start : start + _PARSED]
            self._unparsed += len(part)
            super().data_received(part)
            if self._unparsed > self.head_bytes:
                self._refuse()
            if self.transport.is_closing():
                return

    def on_headers_complete(self):
        self._end()
        self._in_body = True
        super().on_headers_complete()

    def on_body(self, body):
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self):
        self._end()
        super().on_message_complete()

    def on_response_complete(self):
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._begin(self.transport.abort)

    def connection_lost(self, exc):
        self._end()
        super().connection_lost(exc)

    def _begin(self, late):
        self._end()
        self._late = self.loop.call_later(self.head_seconds, late)

    def _end(self):
        self._unparsed = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self):
        self._end()
        if self.transport.is_closing():
            return
        if self._in_body and self.cycle.response_started:
            self.transport.abort()
            return
        self.send_400_response("The head is too long or too slow.")
