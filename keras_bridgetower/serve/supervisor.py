"""Starts workers of uvicorn, again where one dies, and stops them."""

import os

from prometheus_client import multiprocess
from uvicorn.supervisors import Multiprocess

from keras_bridgetower.serve.environment import COUNTS
from keras_bridgetower.serve.errors import LOG


class Supervisor(Multiprocess):
    """Uvicorn's supervisor, which says when all workers are ready.

    Args:
        config: `uvicorn.Config`.
        listening: socket that the workers accept connections from.
        ready: callable without arguments, called once.
    """

    def __init__(self, config, listening, ready):
        super().__init__(config, [listening])
        self._ready = ready
        self._told = False

    def init_processes(self):
        """Start the workers."""
        super().init_processes()
        self._leave_their_ends()

    def keep_subprocess_alive(self):
        """Look after the workers; uvicorn calls this twice a second."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        if self.should_exit.is_set():
            return
        self._leave_their_ends()
        for gone in before - {process.pid for process in self.processes}:
            LOG.error("A process of the server died. Another is starting.")
            # What it worked on is no more present.
            multiprocess.mark_process_dead(gone, os.environ[COUNTS])
        if not self._told and all(x.is_ready() for x in self.processes):
            self._told = True
            self._ready()

    def terminate_all(self):
        """Take no more connections, and tell the workers to stop."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()

    def _leave_their_ends(self):
        """Close the workers' ends of the pipes, which they have themselves.

        While one was open here, a worker that died as it was asked for a sign
        of life was waited for.
        """
        for process in self.processes:
            process.child_conn.close()
