"""Read and write the checkpoints of a run in a folder or an object store.

In a store a checkpoint has the same files. Its manifest is written last and
removed first, so that no part of a checkpoint is taken for a whole one.
"""

import contextlib
import json
import pathlib
import tempfile
import urllib.parse
import warnings

import filelock

from keras_bridgetower import files
from keras_bridgetower.object_stores import open_store
from keras_bridgetower.presets.manifest import MANIFEST
from keras_bridgetower.presets.manifest import folder_sums
from keras_bridgetower.presets.safe_files import plain_name
from keras_bridgetower.presets.stores import is_url
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.folders import CheckpointError

LOCK = ".run.lock"


def open_place(directory):
    """Return the place of a run by its path or URL."""
    return RunStore(directory) if is_url(directory) else RunFolder(directory)


class RunFolder:
    """The checkpoints of a run in a folder that all processes see.

    Args:
        directory: path of the folder.
    """

    formats = folders.STORES

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)

    def __str__(self):
        return str(self._directory)

    @contextlib.contextmanager
    def exclusive(self, strategy):
        """Lock the place for one run in the context.

        The operating system releases the lock when the process ends.

        Args:
            strategy: the run's `Strategy`. Process 0 takes the lock for all,
                but every process must call this.

        Raises:
            CheckpointError: another run has the lock, or this process cannot
                write here.
            ProcessError: as both, in one of several processes.
            ValueError: the folder is a link.
        """
        files.check_no_link(self._directory, "`directory`")
        strategy.together(lambda: self._check_writable(strategy.index))
        path = self._directory / LOCK
        lock = filelock.FileLock(path, timeout=0, mode=0o664)

        def acquire():
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise CheckpointError(
                    "A run's folder must have one run at a time. "
                    f"Received: directory={str(self)!r}"
                ) from error
            except (OSError, NotImplementedError) as error:
                warnings.warn(
                    "The run's folder cannot be locked, as on some file "
                    "systems of clusters: make sure that no other run uses "
                    f"it. Received: directory={str(self)!r} ({error})",
                    stacklevel=4,
                )

        strategy.by_chief(acquire)
        try:
            yield
        finally:
            lock.release()

    def _check_writable(self, index):
        """Raise now the error that the first checkpoint would raise later."""
        probe = self._directory / f".run.probe-{index}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            files.write_atomically(probe, lambda file: file.write(b"probe"))
            probe.unlink()
        except OSError as error:
            raise CheckpointError(
                "A run's folder must be writable, with room for checkpoints. "
                f"Received: directory={str(self)!r} ({error})"
            ) from error

    def names(self):
        """Return the names of the checkpoints, oldest first."""
        return [p.name for p in folders.checkpoints_in(self._directory)]

    def newest(self):
        """Read the newest checkpoint, as `folders.newest`."""
        return folders.newest(self._directory)

    def write(self, step, arrays, facts, strategy, batches):
        """Write a checkpoint, as `folders.write`."""
        folders.write(self._directory, step, arrays, facts, strategy, batches)

    def prune(self, keep, monitor, better):
        """Remove checkpoints, as `folders.prune`."""
        folders.prune(self._directory, keep, monitor, better)


class RunStore:
    """The checkpoints of a run in an object store, by fsspec.

    Each process writes its files to a temporary folder and uploads them.

    Args:
        url: str, such as `"s3://bucket/run"`.
    """

    # Orbax needs a folder that all processes see: process 0 writes instead.
    formats = folders.STORES | {"orbax": folders.STORES["file"]}

    def __init__(self, url):
        if urllib.parse.urlsplit(url).password is not None:
            # Errors and logs would have it.
            raise ValueError("`directory` must have no password in its URL.")
        self._url = url.rstrip("/")
        store, root = open_store(self._url)
        self._store, self._root = store, root.rstrip("/")
        # Facts of the checkpoints that this run knows, by name.
        self._facts = {}

    def __str__(self):
        return self._url

    @contextlib.contextmanager
    def exclusive(self, strategy):
        """Check that all processes can write. A store has no lock."""

        def check():
            probe = self._path(f".run.probe-{strategy.index}")
            with self._errors("A run's folder must be writable."):
                self._store.pipe_file(probe, b"probe")
                self._store.rm_file(probe)

        strategy.together(check)
        yield

    def names(self):
        """Return the names of the complete checkpoints, oldest first."""
        with self._errors("A run's folder must be readable."):
            return self._complete(self._objects())

    def newest(self):
        """Read the newest undamaged checkpoint, as `folders.newest`."""
        names = self.names()
        with self._errors("The checkpoints could not be fetched."):
            self._facts = {name: self._read_facts(name) for name in names}
            return folders.read_newest(names, self._read)

    def write(self, step, arrays, facts, strategy, batches):
        """Write a checkpoint, as `folders.write`."""
        name = folders.checkpoint_name(step, batches)
        kind = self.formats[strategy.store]

        def begin():
            objects = self._objects()
            others = {*self._complete(objects)} - self._facts.keys()
            if others:
                raise CheckpointError(
                    "A run's folder must have one run at a time. Received: "
                    f"directory={self._url!r}, where another run wrote "
                    f"{sorted(others)}"
                )
            self._remove(name, objects.get(name, ()))

        def upload():
            sums = folder_sums(own)
            for file in sums:
                self._put(own / file, self._path(name, file))
            return sums

        def end():
            saved = {**facts, "step": step, "store": kind.name, "sha256": sums}
            text = folders.sealed(saved)
            self._store.pipe_file(self._path(name, MANIFEST), text.encode())
            self._facts[name] = saved
            objects = self._objects()
            for newer in self._complete(objects):
                if newer > name:
                    self._set_aside(newer, objects[newer])

        text = f"The checkpoint of step {step} could not be written."
        with self._errors(text), tempfile.TemporaryDirectory() as own:
            own = pathlib.Path(own)
            strategy.by_chief(begin)
            strategy.together(
                lambda: kind.write(own, arrays, strategy.is_chief)
            )
            each = strategy.gather_text(json.dumps(strategy.together(upload)))
            sums = {
                k: v for text in each for k, v in files.parse_json(text).items()
            }
            strategy.by_chief(end)

    def prune(self, keep, monitor, better):
        """Remove all checkpoints but the newest and the best, and parts."""
        with self._errors("Old checkpoints could not be removed."):
            objects = self._objects()
            kept = folders.to_keep(
                *(self._complete(objects), self._facts.get),
                *(keep, monitor, better),
            )
            for name in objects.keys() - kept:
                self._remove(name, objects[name])

    def _path(self, *names):
        return "/".join((self._root, *names))

    def _objects(self):
        """Return the files of each checkpoint, also of incomplete ones."""
        self._store.invalidate_cache()
        found = {}
        for path in self._store.find(self._root):
            name, _, file = path[len(self._root) + 1 :].partition("/")
            if name.startswith(folders.PREFIX) and file:
                found.setdefault(name, []).append(file)
        return found

    def _complete(self, objects):
        return sorted(name for name in objects if MANIFEST in objects[name])

    def _read_facts(self, name):
        """Return the facts of a checkpoint, or `{}` if it is damaged."""
        text = self._store.cat_file(self._path(name, MANIFEST))
        try:
            return folders.parse_facts(text.decode())
        except folders.OF_DAMAGE:
            return {}

    def _read(self, name):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary, name)
            wanted = self._facts[name].get("sha256", {})
            for file in filter(plain_name, (*wanted, MANIFEST)):
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                # Reading finds that it is missing.
                with contextlib.suppress(FileNotFoundError):
                    self._store.get_file(self._path(name, file), str(path))
            return folders.read(folder, f"{self._url}/{name}")

    def _put(self, file, path):
        self._store.put_file(str(file), path)

    def _remove(self, name, names):
        """Remove the files of a checkpoint, its manifest first."""
        for file in sorted(names, key=lambda file: file != MANIFEST):
            self._store.rm_file(self._path(name, file))

    def _set_aside(self, name, names):
        """Rename a damaged checkpoint to `damaged-...`."""
        for file in names:
            path = self._path(f"damaged-{name}", file)
            self._store.cp_file(self._path(name, file), path)
        self._remove(name, names)

    @contextlib.contextmanager
    def _errors(self, text):
        try:
            yield
        except CheckpointError:
            raise
        # Libraries of stores raise errors of many types.
        except Exception as error:
            raise CheckpointError(
                f"{text} Received: directory={self._url!r} "
                f"({type(error).__name__}: {error})"
            ) from error
