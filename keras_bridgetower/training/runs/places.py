"""Read and write the checkpoints of a run in a folder or an object store.

In a store a checkpoint has the same files. Its manifest is written last and
removed first, so that no part of a checkpoint is taken for a whole one.
"""

import contextlib
import json
import math
import pathlib
import shutil
import tempfile
import urllib.parse
import warnings

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.distribution.strategy import ProcessError
from keras_bridgetower.distribution.strategy import Strategy
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

    def checkpoints(self):
        """Return the paths of the checkpoints, oldest first."""
        return sorted(self._directory.glob(f"{folders.PREFIX}*"))

    def names(self):
        """Return the names of the checkpoints, oldest first."""
        return [path.name for path in self.checkpoints()]

    def newest(self):
        """Read the newest undamaged checkpoint.

        Damaged ones are skipped with a warning.

        Returns:
            `(arrays, facts)`, or None if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
        """
        return _read_newest(self.checkpoints(), folders.read)

    def write(self, step, arrays, facts, strategy=None, batches=0):
        """Write a checkpoint to a temporary folder, flush and rename it.

        Checkpoints of later steps are damaged, or the run would have continued
        from them. They are renamed to `damaged-...`, so that they are not
        taken for newer ones.

        Args:
            step: int, number of updates so far; part of the checkpoint's name.
            arrays: dict from name to array, as the strategy's store takes
                them.
            facts: dict of plain values for the manifest.
            strategy: a `Strategy`, whose processes must all call this. By
                default one process.
            batches: int, number of batches after the last update, whose
                gradients are accumulated; part of the name too.

        Raises:
            CheckpointError: the disk is full or not writable. Earlier
                checkpoints are unchanged.
        """
        strategy = strategy or Strategy()
        kind = self.formats[strategy.store]
        final = self._directory / folders.checkpoint_name(step, batches)
        temporary = self._directory / f".{final.name}"

        def begin():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

        def end():
            sums = folder_sums(temporary)
            saved = {**facts, "step": step, "store": kind.name, "sha256": sums}
            (temporary / MANIFEST).write_text(files.checksummed(saved))
            for name in (*sums, MANIFEST, "."):
                files.synchronize(temporary / name)
            if final.exists():
                _remove(final)
            temporary.rename(final)
            for newer in self.checkpoints():
                if newer > final:
                    aside = newer.with_name(f"damaged-{newer.name}")
                    shutil.rmtree(aside, ignore_errors=True)
                    newer.rename(aside)
            files.synchronize(self._directory)

        text = f"The checkpoint of step {step} could not be written."
        with _errors(self, f"{text} Earlier ones are unchanged."):
            try:
                strategy.by_chief(begin)
                strategy.together(
                    lambda: kind.write(temporary, arrays, strategy.is_chief)
                )
                strategy.by_chief(end)
            except (OSError, ProcessError):
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def prune(self, keep, monitor, better):
        """Remove all checkpoints but the newest and the best, and parts.

        Args:
            keep: int, number of the newest checkpoints to keep.
            monitor: str, the logged value that determines the best, or None.
            better: callable, `max` or `min`.
        """
        found = self.checkpoints()
        kept = _to_keep(found, folders.read_facts, keep, monitor, better)
        for folder in found:
            if folder not in kept:
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


class RunStore:
    """The checkpoints of a run in an object store, as `RunFolder`.

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
        """Read the newest undamaged checkpoint, as `RunFolder.newest`."""
        names = self.names()
        with _errors(self, "The checkpoints could not be fetched."):
            self._facts = {name: self._read_facts(name) for name in names}
            return _read_newest(names, self._read)

    def write(self, step, arrays, facts, strategy, batches):
        """Write a checkpoint, as `RunFolder.write`."""
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
                self._store.write(f"{name}/{file}", own / file)
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
            kept = _to_keep(
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

    def _remove(self, name, found):
        """Remove the files of a checkpoint, its manifest first."""
        self._store.remove(found.get(name, ()), f"{name}/{MANIFEST}")


def _read_newest(checkpoints, read):
    """Read the newest undamaged checkpoint of several.

    Damaged ones are skipped with a warning.

    Args:
        checkpoints: list of the checkpoints, oldest first.
        read: function from one of them to its arrays and facts, which raises
            `CheckpointError` if it is damaged.

    Returns:
        `(arrays, facts)`, or None if there is no checkpoint.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
    """
    error = None
    for checkpoint in reversed(checkpoints):
        try:
            return read(checkpoint)
        except CheckpointError as raised:
            error = raised
            text = f"{raised} The checkpoint before it is tried."
            warnings.warn(text, stacklevel=2)
    if error is not None:
        raise error
    return None


def _to_keep(checkpoints, facts_of, keep, monitor, better):
    """Return the set of the newest checkpoints and the best.

    Args:
        checkpoints: list of the checkpoints, oldest first.
        facts_of: function from one of them to its facts.
        keep, monitor, better: as in `RunFolder.prune`.
    """
    scores = {}
    for checkpoint in checkpoints:
        with contextlib.suppress(OSError, *folders.OF_DAMAGE):
            # A damaged checkpoint has no score.
            score = facts_of(checkpoint)["logs"][monitor]
            if math.isfinite(score):
                scores[checkpoint] = score
    best = [better(scores, key=scores.get)] if scores else []
    return {*checkpoints[-keep:], *best}


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
