"""`Cached`: results that several threads ask for, each computed once."""

import functools
import threading


class Cached:
    """Calls a function, and caches its last results.

    A thread waits while another one computes.

    Args:
        function: callable of hashable arguments; picklable if this is pickled.
        count: int, how many results are cached.
    """

    def __init__(self, function, count):
        self._given = function, count
        self._cached = functools.lru_cache(count)(function)
        self._lock = threading.Lock()

    def __call__(self, *arguments):
        with self._lock:
            return self._cached(*arguments)

    def __reduce__(self):
        return Cached, self._given
