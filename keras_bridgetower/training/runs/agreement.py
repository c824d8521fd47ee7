"""Checks that all processes of a run have the same settings, data and weights.

Processes that continue from different checkpoints would train different models
and average their gradients without any error. If they differ, all of them end.
"""

import dataclasses
import zlib

import keras
import numpy as np

from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import differences as of_processes
from keras_bridgetower.training.runs import folders as checkpoints
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.folders import CheckpointError


def check(strategy, facts):
    """Raise unless all processes have the same facts. Every one must call it.

    Args:
        strategy: a `Strategy`.
        facts: dict of plain values of this process.

    Raises:
        CheckpointError: in every process; it lists the facts that differ.
    """
    differing = of_processes(strategy, facts)
    if differing:
        raise CheckpointError(
            "All processes of a run must have the same command, data and "
            f"directory of checkpoints. Received:\n{differing}"
        )


def newest(strategy, directory, started):
    """Read the newest checkpoint of a run, the same one in every process.

    Args:
        strategy: a `Strategy`; every process must call this.
        directory: path of the run's folder.
        started: dict of plain values, the settings of this process.

    Returns:
        `(arrays, facts)` for this process, or None if there is no checkpoint.

    Raises:
        CheckpointError: no checkpoint can be read, or the processes differ.
        ProcessError: another process cannot read the checkpoint.
    """
    # Check before reading, since on JAX all processes read together.
    names = [path.name for path in checkpoints.checkpoints_in(directory)]
    check(strategy, started | {"checkpoint": names[-1:]})
    found = strategy.together(lambda: checkpoints.newest(directory))
    arrays, facts = found or ({}, {})
    check(strategy, {"step": facts.get("step"), "sums": facts.get("sha256")})
    return found and (process_seeds.for_process(strategy, arrays), facts)


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
        check(strategy, facts | _model_facts(strategy, model))


def _model_facts(strategy, model):
    """Return the number of updates of a model and a checksum of its state."""
    variables = state.variables(model)
    own = strategy.own_draws(variables)
    total = 0
    for name, variable in variables.items():
        if name not in own and strategy.is_whole(variable):
            array = keras.ops.convert_to_numpy(variable)
            content = np.ascontiguousarray(array).reshape(-1).view("uint8")
            total = zlib.crc32(content, total)
    iterations = keras.ops.convert_to_numpy(model.optimizer.iterations)
    return {"iterations": int(iterations), "weights": f"{total:08x}"}
