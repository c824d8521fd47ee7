"""Read and write the checkpoints of a run in a folder or an object store.

In a store a checkpoint has the same files. Its manifest is written last and
removed first, so that no part of a checkpoint is taken for a whole one.
"""

import contextlib
import json
import pathlib
import tempfile
import urllib.parse

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.distribution.strategy import ProcessError
from keras_bridgetower.presets.manifest import MANIFEST
from keras_bridgetower.presets.manifest import folder_sums
from keras_bridgetower.presets.safe_files import LARGEST_ASSET
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.folders import CheckpointError

LOCK = ".run.lock"


def open_place(directory):
    """Return the place of a run by its path or URL."""
    is_url = object_stores.is_url(directory)
    return RunStore(directory) if is_url else RunFolder(directory)


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
        probe = self._directory / f".run.probe-{strategy.index}"

        def check():
            # The error that the first checkpoint would raise later.
            with _errors(self, "A run's folder must be writable, with room."):
                self._directory.mkdir(parents=True, exist_ok=True)
                files.write_atomically(probe, lambda file: file.write(b"probe"))
                probe.unlink()

        strategy.together(check)
        where = f"Received: directory={str(self)!r}"
        lock = files.locked(
            *(self._directory / LOCK, 0),
            CheckpointError(
                f"A run's folder must have one run at a time. {where}"
            ),
            "The run's folder cannot be locked, as on some file systems of "
            f"clusters: make sure that no other run uses it. {where}",
        )
        with contextlib.ExitStack() as stack:
            strategy.by_chief(lambda: stack.enter_context(lock))
            yield

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
    """The checkpoints of a run in an object store.

    Each process writes its files to a temporary folder and uploads them.

    Args:
        url: str, such as `"s3://bucket/run"`.
    """

    # Orbax needs a folder that all processes see: process 0 writes instead.
    formats = folders.STORES | {"orbax": folders.STORES["file"]}

    def __init__(self, url):
        if urllib.parse.urlsplit(url).password is not None:
            # Scripts and lists of processes would have it.
            raise ValueError("`directory` must have no password in its URL.")
        self._store = object_stores.Store(url)
        # Facts of the checkpoints that this run knows, by name.
        self._facts = {}

    def __str__(self):
        return str(self._store)

    @contextlib.contextmanager
    def exclusive(self, strategy):
        """Check that all processes can write. A store has no lock."""

        def check():
            probe = f".run.probe-{strategy.index}"
            with _errors(self, "A run's folder must be writable."):
                self._store.write(probe, b"probe")
                self._store.remove([probe])

        strategy.together(check)
        yield

    def names(self):
        """Return the names of the complete checkpoints, oldest first."""
        with _errors(self, "A run's folder must be readable."):
            return _complete(self._files())

    def newest(self):
        """Read the newest undamaged checkpoint, as `folders.newest`."""
        names = self.names()
        with _errors(self, "The checkpoints could not be fetched."):
            self._facts = {name: self._read_facts(name) for name in names}
            return folders.read_newest(names, self._read)

    def write(self, step, arrays, facts, strategy, batches):
        """Write a checkpoint, as `folders.write`."""
        name = folders.checkpoint_name(step, batches)
        kind = self.formats[strategy.store]

        def begin():
            found = self._files()
            others = {*_complete(found)} - self._facts.keys()
            if others:
                raise CheckpointError(
                    "A run's folder must have one run at a time. Received: "
                    f"directory={str(self)!r}, where another run wrote "
                    f"{sorted(others)}"
                )
            self._remove(name, found)

        def upload():
            sums = folder_sums(own)
            for file in sums:
                self._put(f"{name}/{file}", own / file)
            return sums

        def end():
            saved = {**facts, "step": step, "store": kind.name, "sha256": sums}
            text = files.checksummed(saved)
            self._store.write(f"{name}/{MANIFEST}", text.encode())
            self._facts[name] = saved
            found = self._files()
            for newer in _complete(found):
                if newer > name:
                    # It is damaged, or the run would have continued from it.
                    for file in found[newer]:
                        self._store.copy(file, f"damaged-{file}")
                    self._remove(newer, found)

        text = f"The checkpoint of step {step} could not be written."
        with _errors(self, text), tempfile.TemporaryDirectory() as own:
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
        with _errors(self, "Old checkpoints could not be removed."):
            found = self._files()
            kept = folders.to_keep(
                *(_complete(found), self._facts.get, keep, monitor, better)
            )
            for name in found.keys() - kept:
                self._remove(name, found)

    def _files(self):
        """Return the files of each checkpoint, also of incomplete ones."""
        found = {}
        for file in self._store.names():
            name = file.partition("/")[0]
            if name.startswith(folders.PREFIX) and name != file:
                found.setdefault(name, []).append(file)
        return found

    def _read_facts(self, name):
        """Return the facts of a checkpoint, or `{}` if it is damaged."""
        try:
            text = self._store.read(f"{name}/{MANIFEST}", LARGEST_ASSET)
            return files.parse_checksummed(text.decode())
        except (object_stores.TooLarge, *folders.OF_DAMAGE):
            return {}

    def _read(self, name):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary, name)
            wanted = self._facts[name].get("sha256", {})
            for file in filter(files.plain_name, (*wanted, MANIFEST)):
                # Reading finds that it is missing.
                with contextlib.suppress(object_stores.MissingFile):
                    self._store.fetch(f"{name}/{file}", folder / file)
            return folders.read(folder, f"{self}/{name}")

    def _put(self, name, file):
        self._store.write(name, file)

    def _remove(self, name, found):
        """Remove the files of a checkpoint, its manifest first."""
        self._store.remove(found.get(name, ()), f"{name}/{MANIFEST}")


def _complete(found):
    """Return the names of the checkpoints that have a manifest."""
    return sorted(name for name in found if f"{name}/{MANIFEST}" in found[name])


@contextlib.contextmanager
def _errors(place, text):
    try:
        yield
    except (OSError, ProcessError) as error:
        raise CheckpointError(
            f"{text} Received: directory={str(place)!r} ({error})"
        ) from error
