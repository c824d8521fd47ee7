"""Locks between processes that open one thing at once."""

import contextlib

import filelock


@contextlib.contextmanager
def locked(path):
    """Let one process, and one thread, at a time go on.

    The turn ends with its process, however that ends.

    Args:
        path: `pathlib.Path` of the lock file; its folder is made.
    """
    lock = filelock.FileLock(path, mode=0o664)
    # Some file systems have no locks, and some caches are read-only. Then
    # work is done twice, or fails where it writes.
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
