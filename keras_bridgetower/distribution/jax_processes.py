"""What several processes of JAX tell and give each other."""

import hashlib
import inspect
import os
import random

import keras
import numpy as np

from keras_bridgetower.backend import keras_patches
from keras_bridgetower.backend import keras_patches_distribution

# Seconds without a sign of life after which a process is taken for dead. So
# long the others wait for it, also when they end by an error.
SILENCE = 45


def initialize():
    """Let the processes find each other, as `keras.distribution.initialize`.

    That one leaves `SILENCE` at JAX's 100 seconds.

    Raises:
        ValueError, RuntimeError: they cannot.
    """
    import jax

    known = inspect.signature(jax.distributed.initialize).parameters
    # Only newer versions of JAX have it.
    if "heartbeat_timeout_seconds" not in known or not keras_patches.is_known():
        keras.distribution.initialize()
        return
    addresses, count, index = (
        os.environ.get(f"KERAS_DISTRIBUTION_{name}")
        for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    )
    jax.distributed.initialize(
        # The others find each other by the first one.
        addresses and addresses.split(",")[0],
        count and int(count),
        index and int(index),
        heartbeat_timeout_seconds=SILENCE,
    )
    keras_patches_distribution.share_seed()


def gather_text(text):
    """What each process says, in their order; every one must call it.

    Args:
        text: str.

    Returns:
        list of str.
    """
    content = np.frombuffer(text.encode(), "uint8")
    counts = np.asarray(_all_gather(np.array(len(content), "int32"))).tolist()
    if not any(counts):
        return [""] * len(counts)
    # All must send as much.
    sent = np.zeros(max(counts), "uint8")
    sent[: len(content)] = content
    return [
        bytes(row[:count].tolist()).decode()
        for row, count in zip(
            np.asarray(_all_gather(sent)), counts, strict=True
        )
    ]


def check_seeds():
    """Raise in every process unless all would draw the same weights.

    Raises:
        ValueError: they would not, at which JAX fails in one process alone.
    """
    # Keras draws seeds that are not given from Python's generator.
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
    """Arrays that are split over processes, whole in each of them."""
    return [_all_gather(array, tiled=True) for array in arrays]


def on_all_devices(outputs, mesh):
    """Inside of a compiled step: outputs that every process can read.

    Args:
        outputs: nested structure of tensors.
        mesh: `jax.sharding.Mesh`.
    """
    import jax

    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(outputs, everywhere)


def _all_gather(array, **kwargs):
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, **kwargs)
