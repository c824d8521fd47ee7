"""Devices and memory of a contender's process."""

import contextlib
import os
import pathlib
import threading
import time

FLASH_ATTENTION = {None: "where it can", True: "on", False: "off"}


def run_on(contender):
    """Return the device, and for this package if it uses flash attention."""
    if contender.library == "keras_bridgetower":
        import keras

        flash = keras.config.is_flash_attention_enabled()
        return {
            "device": _DEVICES[contender.backend](),
            "flash attention": FLASH_ATTENTION[flash],
        }
    if contender.library == "transformers":
        return {"device": _torch()}
    return {"device": "cpu"}


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
    """Return the bytes of this process in memory now, on Linux."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """Samples the memory above `before` every five milliseconds."""

    def __init__(self, before):
        super().__init__(daemon=True)
        self.before = before
        self.largest = resident_bytes()
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            self.largest = max(self.largest, resident_bytes())
            time.sleep(0.005)

    @property
    def bytes(self):
        """The largest sample so far, without `before`."""
        return self.largest - self.before


@contextlib.contextmanager
def peak_above(before):
    """Watch the memory while the body runs, and yield the `Peak`."""
    peak = Peak(before)
    peak.start()
    try:
        yield peak
    finally:
        peak.done.set()
        peak.join()
        peak.largest = max(peak.largest, resident_bytes())
