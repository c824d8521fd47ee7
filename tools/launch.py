"""Start processes that train together on this machine."""

import contextlib
import os
import random
import socket
import subprocess
import sys

import keras

BACKEND = keras.config.backend()


def of_torch(rank, port, count):
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def of_jax(rank, port, count):
    return {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
        "KERAS_DISTRIBUTION_PROCESS_ID": str(rank),
    }


def of_tensorflow(rank, port, count):
    workers = [f'"127.0.0.1:{port + i}"' for i in range(count)]
    return {
        "TF_CONFIG": f'{{"cluster": {{"worker": [{", ".join(workers)}]}}, '
        f'"task": {{"type": "worker", "index": {rank}}}}}'
    }


PROCESSES = {"torch": of_torch, "jax": of_jax, "tensorflow": of_tensorflow}


def two_processes():
    return several_processes(2)


def several_processes(count):
    port = free_port()
    return [PROCESSES[BACKEND](rank, port, count) for rank in range(count)]


def free_port():
    """Return a port that is free, as are the next two.

    It is below those that systems hand out to connections meanwhile. Workers of
    TensorFlow use the next ones too.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with contextlib.ExitStack() as bound, contextlib.suppress(OSError):
            for number in range(port, port + 3):
                one = bound.enter_context(socket.socket())
                one.bind(("127.0.0.1", number))
            return port


def started(commands, environments, **kwargs):
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            | environment,
            text=True,
            **{"stderr": subprocess.PIPE, **kwargs},
        )
        for command, environment in zip(commands, environments, strict=True)
    ]


def codes(processes, allowed=(0,), timeout=600):
    """Return exit codes of processes; if one fails, kill the others."""
    try:
        for process in processes:
            _, errors = process.communicate(timeout=timeout)
            if process.returncode not in allowed:
                raise AssertionError(errors[-3000:])
            if process.returncode < 0:
                break
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [process.returncode for process in processes]
