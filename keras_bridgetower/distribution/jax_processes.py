"""Communication between several processes of JAX."""

import hashlib
import inspect
import os
import random

import keras
import numpy as np

from keras_bridgetower.backend.keras_private.trainers import share_seed
from keras_bridgetower.backend.keras_private.versions import is_known

# Seconds without a heartbeat after which a process is taken to have failed.
# The others wait that long for it, even if they end with an error themselves.
HEARTBEAT_TIMEOUT = 45


def initialize():
    """Connect the processes, as `keras.distribution.initialize` does.

    Keras' function would keep JAX's heartbeat timeout of 100 seconds.

    Raises:
        ValueError, RuntimeError: the processes cannot be connected.
    """
    import jax

    if jax.distributed.is_initialized():
        return  # By an earlier call of `distribute`.
    known = inspect.signature(jax.distributed.initialize).parameters
    # Only newer versions of JAX have this argument.
    if "heartbeat_timeout_seconds" not in known or not is_known():
        keras.distribution.initialize()
        return
    addresses, count, index = (
        os.environ.get(f"KERAS_DISTRIBUTION_{name}")
        for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    )
    jax.distributed.initialize(
        # The first process is the coordinator.
        addresses and addresses.split(",")[0],
        count and int(count),
        index and int(index),
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
    )
    share_seed()


def gather_text(text):
    """Gather a text of each process. Every process must call it.

    Args:
        text: str, of this process.

    Returns:
        list of str, in the order of the processes.
    """
    content = np.frombuffer(text.encode(), "uint8")
    counts = np.asarray(_all_gather(np.array(len(content), "int32"))).tolist()
    if not any(counts):
        return [""] * len(counts)
    # All processes must send arrays of one size, so pad with zeros.
    sent = np.zeros(max(counts), "uint8")
    sent[: len(content)] = content
    return [
        bytes(row[:count].tolist()).decode()
        for row, count in zip(
            np.asarray(_all_gather(sent)), counts, strict=True
        )
    ]


def check_seeds():
    """Raise in every process unless all will draw the same initial weights.

    Raises:
        ValueError: their random states differ. JAX itself would raise in one
            process only.
    """
    # Keras draws default seeds from Python's random generator.
    state = hashlib.sha256(repr(random.getstate()).encode()).hexdigest()[:8]
    states = gather_text(state)
    if len(set(states)) > 1:
        raise ValueError(
            "All processes must begin with the same weights: call "
            "`keras.utils.set_random_seed` with one seed in each of them, "
            "before `strategy.scope()`. Each ends here. Received: random "
            f"states {states}, in the order of the processes"
        )


def gathered(arrays):
    """Gather arrays that are split over processes; each gets all of them."""
    return [_all_gather(array, tiled=True) for array in arrays]


def _all_gather(array, **kwargs):
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, **kwargs)
