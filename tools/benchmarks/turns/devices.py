"""What a contender's process runs on, in its own words."""

FLASH_ATTENTION = {None: "where it can", True: "on", False: "off"}


def ran_on(contender):
    """The device and whether Keras uses flash attention.

    Args:
        contender: `Contender` of this process.

    Returns:
        dict: `device`, and of this package `flash attention`.
    """
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
    """The most memory of the GPU that this process has held so far.

    Args:
        backend: str.

    Returns:
        int, or None where no GPU is used.
    """
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
