"""Checks that all processes of a run have the same settings, data and weights.

If processes continued from different checkpoints, they would train different
models and average their gradients, and no error would show it. So if they
differ, the run ends in all of them.
"""

import contextlib
import dataclasses
import hashlib
import json
import zlib

import keras
import numpy as np

from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import ProcessError
from keras_bridgetower.distribution.strategy import by_process
from keras_bridgetower.training.runs import folders as checkpoints
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.folders import CheckpointError


@contextlib.contextmanager
def other_processes_named(strategy):
    """A context whose errors say that another process may be their cause.

    When a process of a run dies, the others see a broken connection only.

    Args:
        strategy: a `Strategy`.

    Raises:
        ProcessError: from the original error, if another process has died.
    """
    try:
        yield
    except (CheckpointError, ProcessError):
        raise
    except Exception as error:
        if lost := strategy.lost():
            raise ProcessError(lost) from error
        if strategy.processes > 1:
            error.add_note(
                f"This is process {strategy.index} of {strategy.processes}. "
                "If the error is one of communication, another process ended "
                "first: read its output. Started again, all of them go on "
                "from the newest checkpoint."
            )
        raise


def check(strategy, facts):
    """Raise unless all processes have the same facts. Every one must call it.

    Args:
        strategy: a `Strategy`.
        facts: dict of plain values of this process.

    Raises:
        CheckpointError: in every process; it lists the facts that differ.
    """
    texts = strategy.gather_text(json.dumps(facts, sort_keys=True))
    if len(set(texts)) == 1:
        return
    each = [_flat(json.loads(text)) for text in texts]
    names = sorted({name for one in each for name in one})
    differ = [n for n in names if any(o.get(n) != each[0].get(n) for o in each)]
    lines = [
        ", ".join(f"{n}={one.get(n)!r:.80}" for n in differ) for one in each
    ]
    raise CheckpointError(
        "All processes of a run must agree: start them with the same command "
        "and the same data, and let all see one directory of checkpoints. "
        f"Each ends here. Received:\n{by_process(lines)}"
    )


def newest(strategy, directory, started):
    """The newest checkpoint of a run, the same one in every process.

    Args:
        strategy: a `Strategy`; every process must call this.
        directory: path of the run's folder.
        started: dict of plain values, the settings of this process.

    Returns:
        `(arrays, facts)` for this process, or None if there is no checkpoint.

    Raises:
        CheckpointError: as in `folders.newest`, or the processes differ.
        ProcessError: another process cannot read the checkpoint.
    """
    # Checked before reading, because on JAX all processes read together.
    seen = strategy.together(lambda: _newest_facts(directory))
    check(strategy, started | seen)
    found = strategy.together(lambda: checkpoints.newest(directory))
    arrays, facts = found or ({}, None)
    check(strategy, _of_checkpoint(facts))
    return found and (process_seeds.of_process(strategy, arrays), facts)


def check_model(strategy, model, position):
    """Raise unless all processes have the same weights and position.

    Args:
        strategy: a `Strategy`; every process must call this.
        model: a compiled model.
        position: a `Position`.

    Raises:
        CheckpointError: as in `check`.
    """
    if strategy.processes > 1:
        facts = dataclasses.asdict(position)
        check(strategy, facts | _of_model(strategy, model))


def _newest_facts(directory):
    """Facts about the newest checkpoint, from its manifest only."""
    folders = checkpoints.checkpoints_in(directory)
    if not folders:
        return {"checkpoint": "none"}
    manifest = folders[-1] / checkpoints.MANIFEST
    content = manifest.read_bytes() if manifest.exists() else b""
    return {
        "checkpoint": f"step {int(folders[-1].name.rpartition('-')[2])}",
        "sum": hashlib.sha256(content).hexdigest()[:16],
    }


def _of_checkpoint(facts):
    """Facts that identify a checkpoint."""
    if facts is None:
        return {"checkpoint": "none"}
    sums = json.dumps(facts["sha256"], sort_keys=True).encode()
    return {
        "checkpoint": f"step {facts['step']}",
        "sum": hashlib.sha256(sums).hexdigest()[:16],
    }


def _of_model(strategy, model):
    """Facts that identify the state of a model: updates and a checksum."""
    variables = state.variables_of(model)
    own = strategy.own_draws(variables)
    total = 0
    for name, variable in variables.items():
        if name not in own and strategy.is_whole(variable):
            array = keras.ops.convert_to_numpy(variable)
            content = np.ascontiguousarray(array).reshape(-1).view("uint8")
            total = zlib.crc32(content, total)
    iterations = keras.ops.convert_to_numpy(model.optimizer.iterations)
    return {"iterations": int(iterations), "weights": f"{total:08x}"}


def _flat(values, prefix=""):
    """A nested dict as a flat one, whose keys are joined by dots."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
