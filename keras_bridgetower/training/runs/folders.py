"""Checkpoint folders: written atomically, checked when read, pruned."""

import contextlib
import hashlib
import json
import math
import pathlib
import shutil
import warnings

from keras_bridgetower.checks import is_integer
from keras_bridgetower.distribution.strategy import ProcessError
from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.files import parse_json
from keras_bridgetower.files import read_text
from keras_bridgetower.files import synchronise
from keras_bridgetower.presets.manifest import MANIFEST
from keras_bridgetower.presets.manifest import sums_of
from keras_bridgetower.presets.safe_files import LARGEST_ASSET
from keras_bridgetower.training.runs.stores import STORES

_PREFIX = "step-"
# The entries of a manifest that must be dicts if they exist.
_TABLES = (
    *("sha256", "logs", "settings", "versions", "stream", "training"),
    "callbacks",
)
# More steps than any run makes.
_MOST = 10**12


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or continued."""


def write(directory, step, arrays, facts, strategy=None, batches=0):
    """Write a checkpoint to a temporary folder, synchronise it, and rename it.

    If there are checkpoints of later steps, they could not be read, or the
    run would have continued from them. They are renamed to `damaged-...`, so
    that they are not taken for newer ones.

    Args:
        directory: path of the run's folder.
        step: int, number of updates so far; part of the checkpoint's name.
        arrays: dict from name to array, as the strategy's store takes them.
        facts: dict of plain values for the manifest.
        strategy: a `Strategy`, all of whose processes must call this; by
            default one process.
        batches: int, number of batches after the last update, whose gradients
            are accumulated; part of the name, too.

    Returns:
        Path of the checkpoint.

    Raises:
        CheckpointError: the disk is full or not writable. Earlier checkpoints
            are unchanged.
    """
    strategy = strategy or Strategy()
    store = STORES[strategy.store]
    directory = pathlib.Path(directory)
    within = f"-{batches:04d}" if batches else ""
    final = directory / f"{_PREFIX}{step:09d}{within}"
    temporary = directory / f".{final.name}"

    def begin():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def end():
        _seal(temporary, {**facts, "step": step, "store": store.name})
        if final.exists():
            _remove(final)
        temporary.rename(final)
        _set_aside(
            newer for newer in checkpoints_in(directory) if newer > final
        )
        synchronise(directory)

    try:
        strategy.by_chief(begin)
        strategy.together(
            lambda: store.write(temporary, arrays, strategy.is_chief)
        )
        strategy.by_chief(end)
    except (OSError, ProcessError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint of step {step} could not be written; those "
            "before are as they were. Make room, or choose another "
            f"directory. Received: directory={str(directory)!r} ({error})"
        ) from error
    return final


def read(folder):
    """Read the arrays and facts of a checkpoint.

    Args:
        folder: path of a checkpoint.

    Returns:
        `(arrays, facts)`, as given to `write`, but always NumPy arrays.

    Raises:
        CheckpointError: a file is missing or not as it was written.
    """
    folder = pathlib.Path(folder)
    try:
        facts = read_facts(folder)
        sums = sums_of(folder)
        saved = facts["sha256"]
        changed = {n for n in {*sums, *saved} if sums.get(n) != saved.get(n)}
        if changed:
            raise ValueError(f"the sums of {sorted(changed)} are others")
        arrays = STORES[facts["store"]].read(folder)
    except (OSError, ValueError, KeyError) as e:
        raise CheckpointError(
            "A checkpoint must be as it was written. Received: "
            f"folder={str(folder)!r} ({e})"
        ) from e
    return arrays, facts


def read_facts(folder):
    """Read the manifest of a checkpoint.

    Args:
        folder: path of a checkpoint.

    Returns:
        dict of plain values.

    Raises:
        OSError, ValueError: the manifest is missing or was changed.
    """
    text = read_text(folder / MANIFEST, LARGEST_ASSET)
    try:
        facts = parse_json(text)
        known = {name: facts.get(name, {}) for name in _TABLES}
        known["sha256"], store = facts["sha256"], facts["store"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} lacks values: {error!r}") from error
    # Manifests of earlier versions have no seal, and their last entry is
    # `sha256`.
    if list(facts)[-1] != "sha256" and text != _text(
        {k: v for k, v in facts.items() if k != "seal"}
    ):
        raise ValueError(f"{MANIFEST} was changed")
    wrong = [name for name, x in known.items() if not isinstance(x, dict)]
    if not _is_position(facts.get("position", {})):
        wrong.append("position")
    if type(store) is not str:
        wrong.append("store")
    if wrong:
        raise ValueError(f"{MANIFEST} has other values at {wrong}")
    return facts


def newest(directory):
    """Read the newest checkpoint of a run that is not damaged.

    Damaged ones are skipped with a warning.

    Args:
        directory: path of the run's folder.

    Returns:
        `(arrays, facts)`, or None if the run has no checkpoint.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
    """
    error = None
    for folder in reversed(checkpoints_in(directory)):
        try:
            return read(folder)
        except CheckpointError as found:
            error = found
            warnings.warn(
                f"{found} The checkpoint before it is tried.", stacklevel=2
            )
    if error is not None:
        raise error
    return None


def checkpoints_in(directory):
    """Paths of the checkpoints of a run, oldest first."""
    return sorted(pathlib.Path(directory).glob(f"{_PREFIX}*"))


def prune(directory, keep, monitor, better):
    """Remove all checkpoints but the newest and the best.

    Args:
        directory: path of the run's folder.
        keep: int, how many of the newest stay.
        monitor: str, name of the logged value by which to find the best, or
            None.
        better: callable, `max` or `min`.
    """
    folders = checkpoints_in(directory)
    kept = set(folders[-keep:])
    scores = {}
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            # A damaged one has no score.
            score = read_facts(folder)["logs"][monitor]
            if math.isfinite(score):
                scores[folder] = score
    if scores:
        kept.add(better(scores, key=scores.get))
    for folder in folders:
        if folder not in kept:
            _remove(folder)
    for left in pathlib.Path(directory).glob(f".{_PREFIX}*"):
        # Left by a process that was killed while it wrote or removed one.
        shutil.rmtree(left, ignore_errors=True)


def _set_aside(folders):
    """Rename checkpoints to `damaged-...`."""
    for folder in folders:
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def _remove(folder):
    """Remove a checkpoint.

    It is renamed first: a folder that is removed in part must not look like a
    checkpoint.
    """
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _seal(folder, facts):
    """Flush all files of a folder to disk, and write its manifest."""
    sums = sums_of(folder)
    for name in sums:
        synchronise(folder / name)
    (folder / MANIFEST).write_text(_text({**facts, "sha256": sums}))
    synchronise(folder / MANIFEST)
    synchronise(folder)


def _text(facts):
    """The text of a manifest, which ends with the SHA-256 of its content."""
    seal = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return json.dumps({**facts, "seal": seal}, indent=1) + "\n"


def _is_position(values):
    return isinstance(values, dict) and all(
        is_integer(n) and 0 <= n < _MOST for n in values.values()
    )
