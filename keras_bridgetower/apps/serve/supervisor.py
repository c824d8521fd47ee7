"""Starts workers of uvicorn, again where one dies, and stops them."""

import asyncio
import contextlib
import os
import threading

import uvicorn
from prometheus_client import multiprocess
from starlette.responses import JSONResponse
from uvicorn.supervisors import Multiprocess

from keras_bridgetower.apps.serve.environment import COUNTS
from keras_bridgetower.apps.serve.errors import LOG
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.errors import error_body

# Seconds to read the body of a request that is refused while workers load.
_BODY_SECONDS = 2


class Supervisor(Multiprocess):
    """Uvicorn's supervisor, which says when all workers are ready.

    While no worker is ready, this process answers with status 503. Requests
    would else wait for as long as a worker takes to load its presets.

    Args:
        config: `uvicorn.Config`.
        listening: socket that the workers accept connections from.
        ready: callable without arguments, called once.
        settings: dict, arguments of the `uvicorn.Config` of this process.
    """

    def __init__(self, config, listening, ready, settings):
        super().__init__(config, [listening])
        self._ready = ready
        self._told = False
        self._settings = settings
        self._loading = self._thread = None

    def init_processes(self):
        """Start the workers."""
        super().init_processes()
        self._leave_their_ends()
        self._answer_meanwhile()

    def keep_subprocess_alive(self):
        """Look after the workers; uvicorn calls this twice a second."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        if self.should_exit.is_set():
            return
        self._leave_their_ends()
        kept = [x for x in self.processes if x.pid in before]
        for gone in before - {process.pid for process in kept}:
            LOG.error("A process of the server died. Another is starting.")
            # What it worked on is no more present.
            multiprocess.mark_process_dead(gone, os.environ[COUNTS])
        if self._loading is not None:
            if any(process.is_ready() for process in kept):
                self._loading.should_exit = True
                self._loading = None
        elif len(kept) < len(before) and not any(x.is_ready() for x in kept):
            self._answer_meanwhile()
        if not self._told and all(x.is_ready() for x in self.processes):
            self._told = True
            self._ready()

    def terminate_all(self):
        """Take no more connections, and tell the workers to stop."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()
        if self._loading is not None:
            self._loading.should_exit = True
            self._thread.join()

    def _answer_meanwhile(self):
        config = uvicorn.Config(_refuse_while_loading, **self._settings)
        self._loading = uvicorn.Server(config)
        # The server closes its sockets when it ends.
        sockets = [listening.dup() for listening in self.sockets]
        self._thread = threading.Thread(
            target=self._loading.run, args=(sockets,), daemon=True
        )
        self._thread.start()

    def _leave_their_ends(self):
        """Close the workers' ends of the pipes, which they have themselves.

        While one was open here, a worker that died as it was asked for a sign
        of life was waited for.
        """
        for process in self.processes:
            process.child_conn.close()


async def _refuse_while_loading(scope, receive, send):
    # A connection that is closed before its body was read may lose the answer.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BODY_SECONDS):
            while (await receive()).get("more_body"):
                pass
    error = RequestError(503, "The presets are loading. Try again later.")
    # The next request shall reach a worker.
    headers = {"retry-after": "1", "connection": "close"}
    answer = JSONResponse(error_body(error), error.status, headers)
    await answer(scope, receive, send)
