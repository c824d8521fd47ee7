"""Lock files: one process at a time downloads, converts or writes."""

import contextlib

import filelock

from keras_bridgetower.files import check_no_link


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


@contextlib.contextmanager
def one_writer(path, refusal):
    """A context that one process at a time can be in; others are refused.

    Args:
        path: path of the lock file, in a folder that exists.
        refusal: str, the text of the error.

    Raises:
        ValueError: another process or thread is in it, or the file is a link.
    """
    check_no_link(path, "A lock file")
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(refusal) from error
    except (OSError, NotImplementedError):
        # Some file systems have no locks.
        pass
    try:
        yield
    finally:
        lock.release()
