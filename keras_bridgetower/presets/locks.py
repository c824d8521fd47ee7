"""A lock file, so that only one process at a time downloads or converts."""

import contextlib

import filelock


@contextlib.contextmanager
def locked(path):
    """A context that only one process and thread can be in at a time.

    The operating system releases the lock when the process ends.

    Args:
        path: `pathlib.Path` of the lock file; its folder is made.
    """
    lock = filelock.FileLock(path, mode=0o664)
    # Some file systems have no locks, and some caches are read-only. Without
    # a lock, work may be done twice, and writing may fail.
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
