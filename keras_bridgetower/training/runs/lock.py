"""The lock of a run's folder, which allows one run at a time."""

import contextlib
import json
import os
import pathlib
import socket
import warnings

import filelock

from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically
from keras_bridgetower.training.runs.folders import CheckpointError

# Files in the run's folder: the lock, and the process that holds it.
LOCK, HOLDER = ".run.lock", ".run.holder.json"
# In bytes, of `HOLDER`.
_LARGEST = 10_000


@contextlib.contextmanager
def exclusive(directory, strategy):
    """A context in which no other run can use a folder.

    The operating system releases the lock when the process ends.

    Args:
        directory: path of the run's folder; it is made if it does not exist.
        strategy: the run's `Strategy`. Process 0 takes the lock for all, but
            every process must call this.

    Raises:
        CheckpointError: another run holds the lock, or this process cannot
            write in the folder.
        ProcessError: another process of the run cannot.
        ValueError: the folder is a link.
    """
    check_no_link(directory, "`directory`")
    directory = pathlib.Path(directory)
    strategy.together(lambda: _check_writable(directory, strategy.index))
    lock = filelock.FileLock(directory / LOCK, timeout=0, mode=0o664)
    refused = strategy.is_chief and not _acquire(lock, directory)
    if strategy.any(refused):
        raise CheckpointError(
            "A run's folder must have one run at a time. Wait for the other "
            "one, end it, or choose another folder. Received: "
            f"directory={str(directory)!r}, in which this process trains: "
            f"{_holder(directory)}"
        )
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                (directory / HOLDER).unlink()
            lock.release()


def _check_writable(directory, index):
    """Raise now what the first checkpoint would, perhaps hours later."""
    probe = directory / f".run.probe-{index}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(probe, lambda file: file.write(b"probe"))
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            "A run's folder must be writable, for its checkpoints. Change its "
            "permissions, make room on its disk, or choose another folder. "
            f"Received: directory={str(directory)!r} ({error})"
        ) from error


def _acquire(lock, directory):
    """Try to take the lock; return False if another process holds it."""
    try:
        lock.acquire()
        me = {"pid": os.getpid(), "host": socket.gethostname()}
        holder = json.dumps(me).encode()
        write_atomically(directory / HOLDER, lambda file: file.write(holder))
    except filelock.Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        warnings.warn(
            "The run's folder cannot be locked, as on some file systems of "
            "clusters: see to it that no second run uses it. Received: "
            f"directory={str(directory)!r} ({error})",
            stacklevel=4,
        )
    return True


def _holder(directory):
    """The process that holds the lock, in words."""
    try:
        holder = read_json(directory / HOLDER, _LARGEST)
        return f"pid {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
