"""What all processes of a run must agree in, or it ends in all of them.

Processes that go on from different places train different models, of which
they average the gradients: nothing else would tell.
"""

import dataclasses
import hashlib
import json
import zlib

import keras
import numpy as np

from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import by_process
from keras_bridgetower.training.runs import folders as checkpoints
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.folders import CheckpointError


def check(strategy, facts):
    """Raise in every process where one differs. Every process must call it.

    Args:
        strategy: a `Strategy`.
        facts: dict of plain values, of this process.

    Raises:
        CheckpointError: the same in every process; it lists what differs.
    """
    told = strategy.gather_text(json.dumps(facts, sort_keys=True))
    if len(set(told)) == 1:
        return
    each = [_flat(json.loads(text)) for text in told]
    names = sorted({name for one in each for name in one})
    odd = [n for n in names if any(o.get(n) != each[0].get(n) for o in each)]
    lines = [", ".join(f"{n}={one.get(n)!r:.80}" for n in odd) for one in each]
    raise CheckpointError(
        "All processes of a run must agree: start them with the same command "
        "and the same data, and let all see one directory of checkpoints. "
        f"Each ends here. Received:\n{by_process(lines)}"
    )


def newest(strategy, directory, started):
    """The newest checkpoint of a run, the same one in every process.

    Args:
        strategy: a `Strategy`; every process must call it.
        directory: path of the run's folder.
        started: dict of plain values, with what this process was started.

    Returns:
        `(arrays, facts)` for this process, or None where there is none.

    Raises:
        CheckpointError: as `checkpoints.newest`, or processes differ.
        ProcessError: another process cannot read one.
    """
    # Before any is read, which on JAX all do together.
    seen = strategy.together(lambda: _seen(directory))
    check(strategy, started | seen)
    found = strategy.together(lambda: checkpoints.newest(directory))
    arrays, facts = found or ({}, None)
    check(strategy, _of_checkpoint(facts))
    return found and (process_seeds.of_process(strategy, arrays), facts)


def check_model(strategy, model, position):
    """Raise in every process where a model stands elsewhere in one.

    Args:
        strategy: a `Strategy`; every process must call it.
        model: a compiled model.
        position: a `Position`.

    Raises:
        CheckpointError: as `check`.
    """
    if strategy.processes > 1:
        stands = dataclasses.asdict(position)
        check(strategy, stands | _of_model(strategy, model))


def _seen(directory):
    """Which checkpoint is the newest one, by its manifest alone."""
    folders = checkpoints.all_of(directory)
    if not folders:
        return {"checkpoint": "none"}
    manifest = folders[-1] / checkpoints.MANIFEST
    content = manifest.read_bytes() if manifest.exists() else b""
    return {
        "checkpoint": f"step {int(folders[-1].name.rpartition('-')[2])}",
        "sum": hashlib.sha256(content).hexdigest()[:16],
    }


def _of_checkpoint(facts):
    """What tells one checkpoint from another."""
    if facts is None:
        return {"checkpoint": "none"}
    sums = json.dumps(facts["sha256"], sort_keys=True).encode()
    return {
        "checkpoint": f"step {facts['step']}",
        "sum": hashlib.sha256(sums).hexdigest()[:16],
    }


def _of_model(strategy, model):
    """What tells one state of a model from another."""
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
    """Nested dicts as one, by names with dots."""
    made = {}
    for name, value in values.items():
        if isinstance(value, dict):
            made |= _flat(value, f"{prefix}{name}.")
        else:
            made[prefix + name] = value
    return made
