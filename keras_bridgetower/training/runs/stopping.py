"""Handles SIGTERM: the run saves a checkpoint and ends."""

import signal
import threading
import warnings

# The usual exit code after a SIGTERM, 143.
STOPPED = 128 + signal.SIGTERM


class Sigterm:
    """A context in which a SIGTERM is recorded but does not end the process.

    Python receives signals in the main thread only. In another thread the
    context warns, and a SIGTERM ends the process.

    Attributes:
        requested: bool, whether a SIGTERM came.
    """

    def __init__(self):
        self.requested = False
        self._is_main = True

    def __enter__(self):
        self.requested = False
        main = threading.main_thread()
        self._is_main = threading.current_thread() is main
        if self._is_main:
            self._before = signal.signal(signal.SIGTERM, self._note)
        else:
            warnings.warn(
                "`Checkpoint.fit` runs outside the main thread, where Python "
                "receives no signals: a SIGTERM ends the process without a "
                "checkpoint of its last steps.",
                stacklevel=4,
            )
        return self

    def __exit__(self, *_):
        if self._is_main:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_):
        self.requested = True
