"""A signal that asks a run to save and end."""

import signal
import threading
import warnings

# The exit code of a process that SIGTERM ended.
STOPPED = 128 + signal.SIGTERM


class Sigterm:
    """A context in which SIGTERM is noted, and does nothing else.

    Python receives signals in the main thread alone: elsewhere it warns, and
    SIGTERM does what it did.

    Attributes:
        asked: bool, whether one came.
    """

    def __init__(self):
        self.asked = False
        self._is_main = True

    def __enter__(self):
        self.asked = False
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
        self.asked = True
