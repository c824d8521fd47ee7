"""The names of the devices that this process sees."""

import keras


def device_names():
    """The devices of the backend, a list of str, GPUs before the CPU."""
    return _NAMES[keras.config.backend()]()


def _of_tensorflow():
    import tensorflow as tf

    kinds = ("TPU", "GPU", "CPU")
    devices = [d for k in kinds for d in tf.config.list_logical_devices(k)]
    return [device.name.removeprefix("/device:") for device in devices]


def _of_jax():
    import jax

    return [f"{device} ({device.device_kind})" for device in jax.devices()]


def _of_torch():
    import torch

    count = torch.cuda.device_count()
    gpus = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count)]
    return [*gpus, "cpu"]


_NAMES = {
    "tensorflow": _of_tensorflow,
    "jax": _of_jax,
    "torch": _of_torch,
}
