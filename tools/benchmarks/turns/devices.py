"""Devices and memory of a contender's process."""

import os
import pathlib
import threading


def device_of(contender):
    """Return the device of a contender: "cpu" or that of its backend."""
    if contender.library in ("keras_bridgetower", "transformers"):
        return _DEVICES[contender.backend]()
    return "cpu"


def gpu_peak_bytes(backend):
    """Return the peak GPU memory of this process, or None without a GPU."""
    if _DEVICES[backend]() != "gpu":
        return None
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    if backend == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _torch():
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def _jax():
    import jax

    return jax.default_backend()


def _tensorflow():
    import tensorflow as tf

    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


_DEVICES = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}


def resident_bytes():
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """Samples the memory above `before` every five milliseconds."""

    def __init__(self, before):
        super().__init__(daemon=True)
        self.before, self.largest = before, resident_bytes()
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.005):
            self.largest = max(self.largest, resident_bytes())

    @property
    def bytes(self):
        """The largest sample so far, without `before`."""
        return self.largest - self.before

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.join()
        self.largest = max(self.largest, resident_bytes())
