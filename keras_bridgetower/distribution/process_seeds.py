"""Random states that differ between the processes of a run.

A checkpoint contains those of all processes. Names of arrays begin with the
process number, except in process 0.
"""

import json

import keras
import numpy as np

_SEED = "seed_generator_state"
# Distance between the seeds of two processes, larger than usual seeds.
_STRIDE = 1_000_003


def seed_apart(task, index):
    """Change the seeds of a task's layers, differently in each process.

    Args:
        task: a task.
        index: int, number of the process; process 0 keeps its seeds.
    """
    if index:
        for variable in task.variables:
            if variable.name == _SEED:
                state = keras.ops.convert_to_numpy(variable)
                variable.assign(_apart(state, index))


def _is_seed(name):
    return name.endswith(_SEED)


def _apart(state, index):
    # A state is a seed and a counter.
    moved = [int(state[0]) + index * _STRIDE, int(state[1])]
    return (np.array(moved) % 2**31).astype(state.dtype)


def select(arrays):
    """Return the arrays of a run that differ between processes."""
    return {
        name: array
        for name, array in arrays.items()
        if name.startswith("random/") or _is_seed(name)
    }


def with_all_processes(strategy, arrays):
    """Add the random states of all processes to the arrays of a run.

    Every process must call it.

    Args:
        strategy: a `Strategy`.
        arrays: dict from name to array, of this process.

    Returns:
        dict from name to array.
    """
    own = strategy.own_draws(arrays)
    text = {
        name: [str(array.dtype), array.tolist()] for name, array in own.items()
    }
    texts = strategy.gather_text(json.dumps(text)) if own else []
    others = {
        f"process {index}/{name}": np.array(values, dtype)
        for index, text in enumerate(texts)
        for name, (dtype, values) in json.loads(text).items()
        if index
    }
    return {**arrays, **others}


def for_process(strategy, arrays):
    """Return the arrays that this process restores from a checkpoint.

    Args:
        strategy: a `Strategy`.
        arrays: dict from name to NumPy array, as returned by
            `with_all_processes`.

    Returns:
        dict from name to NumPy array.
    """
    index = strategy.index
    mine = f"process {index}/"
    shared = {k: v for k, v in arrays.items() if not k.startswith("process ")}
    own = {k: v for k, v in arrays.items() if k.startswith(mine)}
    first = strategy.own_draws(shared)
    if index and first and not own:
        # The checkpoint has fewer processes, so derive new seeds.
        seeds = {k: _apart(v, index) for k, v in first.items() if _is_seed(k)}
        rest = {k: v for k, v in shared.items() if k not in first}
        return {**rest, **seeds}
    return {**shared, **{k.removeprefix(mine): v for k, v in own.items()}}
