"""The most memory that this process holds while something runs."""

import contextlib
import os
import pathlib
import threading
import time


def resident_bytes():
    """Bytes of this process in memory now, on Linux."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """Looks at the memory every five milliseconds.

    Args:
        before: int, bytes that do not count.
    """

    def __init__(self, before):
        super().__init__(daemon=True)
        self.before = before
        self.largest = resident_bytes()
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            self.largest = max(self.largest, resident_bytes())
            time.sleep(0.005)

    @property
    def bytes(self):
        """The largest so far, above what was before."""
        return self.largest - self.before


@contextlib.contextmanager
def peak_above(before):
    """Watch the memory while the body runs, and yield the `Peak`."""
    peak = Peak(before)
    peak.start()
    try:
        yield peak
    finally:
        peak.done.set()
        peak.join()
        peak.largest = max(peak.largest, resident_bytes())
