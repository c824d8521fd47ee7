"""Devices and memory of a contender's process."""

import pathlib

from turns.works import MODULES


def device_of(contender):
    """Return the device of a contender: "cpu" or that of its backend."""
    if MODULES[contender.library] == "runtimes":
        return "cpu"
    if contender.backend == "jax":
        import jax

        return jax.default_backend()
    if contender.backend == "torch":
        import torch

        return "gpu" if torch.cuda.is_available() else "cpu"
    import tensorflow as tf

    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def gpu_peak_bytes(contender):
    """Return the peak GPU memory of this process, or None without a GPU."""
    if device_of(contender) != "gpu":
        return None
    if contender.backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    if contender.backend == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def forget_peak():
    """Reset the peak to the current memory, and return it."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes():
    """Return the most memory that this process held."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
