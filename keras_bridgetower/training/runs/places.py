"""Read and write the checkpoints of a run in a folder or an object store.

In a store a checkpoint has the same files. Its manifest is written last and
removed first, so that no part of a checkpoint is taken for a whole one.
"""

import contextlib
import hashlib
import math
import pathlib
import shutil
import tempfile
import urllib.parse
import warnings

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.distribution.strategy import ProcessError
from keras_bridgetower.presets.manifest import MANIFEST
from keras_bridgetower.presets.safe_files import LARGEST_ASSET
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.folders import CheckpointError

LOCK = ".run.lock"


def open_place(directory):
    """Return the place of a run by its path or URL."""
    is_url = object_stores.is_url(directory)
    return RunStore(directory) if is_url else RunFolder(directory)


class _Run:
    """Abstract: the checkpoints of a run, wherever they are.

    A class defines `names`; `_read` and `_facts` from the name of a checkpoint
    to its arrays and facts, or to its facts; `_write`; `forget_copies` and
    `_remove_all_but`.
    """

    def newest(self):
        """Read the newest undamaged checkpoint.

        Damaged ones are skipped with a warning.

        Returns:
            `(arrays, facts)`, or None if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
        """
        damaged = None
        with errors(self, "The checkpoints could not be fetched."):
            for name in reversed(self.names()):
                try:
                    return self._read(name)
                except CheckpointError as error:
                    damaged = error
                    text = f"{error} The checkpoint before it is tried."
                    warnings.warn(text, stacklevel=2)
        if damaged is not None:
            raise damaged
        return None

    def write(self, step, arrays, facts, batches=0):
        """Write a checkpoint as a whole or not at all, in one process.

        Checkpoints of later steps are damaged, or the run would have continued
        from them. They are renamed to `damaged-...`, so that they are not
        taken for newer ones.

        Args:
            step: int, number of updates so far; part of the checkpoint's name.
            arrays: dict from name to NumPy array.
            facts: dict of plain values for the manifest.
            batches: int, number of batches after the last update, whose
                gradients are accumulated; part of the name too.

        Raises:
            CheckpointError: the disk is full or not writable. Earlier
                checkpoints are unchanged.
        """
        within = f"-{batches:04d}" if batches else ""
        name = f"{folders.PREFIX}{step:09d}{within}"
        text = f"The checkpoint of step {step} could not be written."
        with errors(self, f"{text} Earlier ones are unchanged."):
            self._write(name, arrays, {**facts, "step": step})

    def prune(self, keep, monitor, better):
        """Remove all checkpoints but the newest and the best, and parts.

        Args:
            keep: int, number of the newest checkpoints to keep.
            monitor: str, the logged value that determines the best, or None.
            better: callable, `max` or `min`.
        """
        with errors(self, "Old checkpoints could not be removed."):
            names, scores = self.names(), {}
            for name in names if monitor else ():
                # A damaged checkpoint has no score. Of one that cannot be read
                # now, nobody knows whether it is the best.
                with contextlib.suppress(FileNotFoundError, *folders.OF_DAMAGE):
                    score = self._facts(name)["logs"][monitor]
                    if math.isfinite(score):
                        scores[name] = score
            best = [better(scores, key=scores.get)] if scores else []
            self._remove_all_but({*names[-keep:], *best})


class RunFolder(_Run):
    """The checkpoints of a run in a folder that all processes see.

    Args:
        directory: path of the folder.
    """

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
            with errors(self, "A run's folder must be writable, with room."):
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

    def checkpoints(self):
        """Return the paths of the checkpoints, oldest first."""
        return sorted(self._directory.glob(f"{folders.PREFIX}*"))

    def names(self):
        """Return the names of the checkpoints, oldest first."""
        return [path.name for path in self.checkpoints()]

    def _read(self, name):
        return folders.read(self._directory / name)

    def _facts(self, name):
        return folders.read_facts(self._directory / name)

    def _write(self, name, arrays, facts):
        """Write a new folder beside the checkpoint, and rename it."""
        part = self._directory / f".{name}"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            folders.write(part, arrays, facts)
            for file in (folders.STATE, MANIFEST, "."):
                files.synchronize(part / file)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        final = self._directory / name
        if final.exists():
            _remove(final)
        part.rename(final)
        for newer in self.checkpoints():
            if newer > final:
                aside = newer.with_name(f"damaged-{newer.name}")
                shutil.rmtree(aside, ignore_errors=True)
                newer.rename(aside)
        files.synchronize(self._directory)

    def forget_copies(self):
        """Do nothing: checkpoints are read where they are."""

    def _remove_all_but(self, names):
        for folder in self.checkpoints():
            if folder.name not in names:
                _remove(folder)
        for left in self._directory.glob(f".{folders.PREFIX}*"):
            # Left by a process that was killed while writing or removing.
            shutil.rmtree(left, ignore_errors=True)


def _remove(folder):
    """Remove a checkpoint.

    Rename it first, so that a partly removed folder is no checkpoint.
    """
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


class RunStore(_Run):
    """The checkpoints of a run in an object store, as `RunFolder`.

    Files are written to a temporary folder and uploaded.

    Args:
        url: str, such as `"s3://bucket/run"`.
    """

    def __init__(self, url):
        if urllib.parse.urlsplit(url).password is not None:
            # Scripts and lists of processes would have it.
            raise ValueError("`directory` must have no password in its URL.")
        self._store = object_stores.Store(url)
        # Names of the checkpoints that this run has found or written, and
        # folders of copies.
        self._known, self._fetched = set(), []

    def __str__(self):
        return str(self._store)

    @contextlib.contextmanager
    def exclusive(self, strategy):
        """Check that all processes can write. A store has no lock."""

        def check():
            probe = f".run.probe-{strategy.index}"
            with errors(self, "A run's folder must be writable."):
                self._store.write(probe, b"probe")
                self._store.remove([probe])

        strategy.together(check)
        yield

    def names(self):
        """Return the names of the complete checkpoints, oldest first."""
        with errors(self, "A run's folder must be readable."):
            return _complete(self._files())

    def newest(self):
        self._known.update(self.names())
        return super().newest()

    def _files(self):
        """Return the files of each checkpoint, also of incomplete ones."""
        found = {}
        for file in self._store.names():
            name = file.partition("/")[0]
            if name.startswith(folders.PREFIX) and name != file:
                found.setdefault(name, []).append(file)
        return found

    def _read(self, name):
        """Read a checkpoint, which the processes of a machine fetch once."""
        found = self._files().get(name, ())
        manifest = f"{name}/{MANIFEST}"
        sums = self._text(manifest) if manifest in found else b""
        # Another checkpoint of the same name has another folder.
        folder = files.keras_home() / "keras_bridgetower_checkpoints"
        folder /= hashlib.sha256(sums).hexdigest()
        self._fetched.append(folder)
        with files.locked(folder.with_name("fetching.lock")):
            for file in found:
                if not (folder / file).exists():
                    self._store.fetch(file, folder / file)
        return folders.read(folder / name, f"{self}/{name}")

    def forget_copies(self):
        """Remove what was fetched. All processes must have read it."""
        while self._fetched:
            shutil.rmtree(self._fetched.pop(), ignore_errors=True)

    def _facts(self, name):
        text = self._text(f"{name}/{MANIFEST}").decode()
        return files.parse_checksummed(text)

    def _text(self, name):
        return self._store.read(name, LARGEST_ASSET)

    def _write(self, name, arrays, facts):
        """Replace a checkpoint of the name; its manifest is uploaded last."""
        found = self._files()
        others = {*_complete(found)} - self._known
        if others:
            raise CheckpointError(
                "A run's folder must have one run at a time. Received: "
                f"directory={str(self)!r}, where another run wrote "
                f"{sorted(others)}"
            )
        self._remove(name, found)
        with tempfile.TemporaryDirectory() as folder:
            part = pathlib.Path(folder)
            folders.write(part, arrays, facts)
            state, manifest = part / folders.STATE, part / MANIFEST
            self._store.write(f"{name}/{folders.STATE}", state)
            self._store.write(f"{name}/{MANIFEST}", manifest.read_bytes())
        self._known.add(name)
        for newer in _complete(found):
            if newer > name:
                for file in found[newer]:
                    self._store.copy(file, f"damaged-{file}")
                self._remove(newer, found)

    def _remove_all_but(self, names):
        found = self._files()
        for name in found.keys() - names:
            self._remove(name, found)

    def _remove(self, name, found):
        """Remove the files of a checkpoint, its manifest first."""
        self._store.remove(found.get(name, ()), f"{name}/{MANIFEST}")


def _complete(found):
    """Return the names of the checkpoints that have a manifest."""
    return sorted(name for name in found if f"{name}/{MANIFEST}" in found[name])


@contextlib.contextmanager
def errors(place, text):
    """Turn errors in the context into a `CheckpointError` of a place."""
    try:
        yield
    except (OSError, ProcessError) as error:
        raise CheckpointError(
            f"{text} Received: directory={str(place)!r} ({error})"
        ) from error
