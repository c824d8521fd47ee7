"""What each process of a run draws with, apart from the others.

Arrays of other processes than the first one stand beside its own in a
checkpoint, under names that begin with the number of the process.
"""

import json

import keras
import numpy as np

_SEED = "seed_generator_state"
# Apart from each other, and from what a user chooses as seeds.
_STRIDE = 1_000_003


def seed_apart(task, index):
    """Let the seeds of a task's layers be those of a process.

    Args:
        task: a task.
        index: int, which process; the first one's stay as they are.
    """
    if index:
        for variable in task.variables:
            if variable.name == _SEED:
                state = keras.ops.convert_to_numpy(variable)
                variable.assign(_apart(state, index))


def _is_seed(name):
    return name.endswith(_SEED)


def _apart(state, index):
    # The first number is the seed, the second counts.
    moved = [int(state[0]) + index * _STRIDE, int(state[1])]
    return (np.array(moved) % 2**31).astype(state.dtype)


def select(arrays):
    """Those of a run's arrays that another process has otherwise."""
    return {
        name: array
        for name, array in arrays.items()
        if name.startswith("random/") or _is_seed(name)
    }


def of_all(strategy, arrays):
    """The arrays of a run, and those that other processes draw with.

    Every process must call it.

    Args:
        strategy: a `Strategy`.
        arrays: dict from name to array, as this process has them.

    Returns:
        dict from name to array.
    """
    own = strategy.own_draws(arrays)
    text = {
        name: [str(array.dtype), array.tolist()] for name, array in own.items()
    }
    told = strategy.gather_text(json.dumps(text)) if own else []
    others = {
        f"process {index}/{name}": np.array(values, dtype)
        for index, text in enumerate(told)
        for name, (dtype, values) in json.loads(text).items()
        if index
    }
    return {**arrays, **others}


def of_process(strategy, arrays):
    """What one process goes on with, of what `of_all` returned.

    Args:
        strategy: a `Strategy`.
        arrays: dict from name to NumPy array.

    Returns:
        dict from name to NumPy array.
    """
    index = strategy.index
    mine = f"process {index}/"
    shared = {k: v for k, v in arrays.items() if not k.startswith("process ")}
    own = {k: v for k, v in arrays.items() if k.startswith(mine)}
    first = strategy.own_draws(shared)
    if index and first and not own:
        # There were fewer processes: this one begins to draw.
        seeds = {k: _apart(v, index) for k, v in first.items() if _is_seed(k)}
        rest = {k: v for k, v in shared.items() if k not in first}
        return {**rest, **seeds}
    return {**shared, **{k.removeprefix(mine): v for k, v in own.items()}}
