"""`distribute`, which chooses the devices that tasks are trained on."""

import importlib
import os

import keras

from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.distribution.strategy import set_current

# The class of each kind. Its module imports the framework.
STRATEGIES = {
    "jax": {
        "none": "strategy.Strategy",
        "data_parallel": "on_jax.DataParallel",
        "fsdp": "on_jax.FSDP",
        "model_parallel": "on_jax.ModelParallel",
        "multi_worker": "on_jax.MultiWorker",
        "tpu": "on_jax.MultiWorker",
    },
    "tensorflow": {
        "none": "strategy.Strategy",
        "data_parallel": "on_tensorflow.Mirrored",
        "multi_worker": "on_tensorflow.MultiWorkerMirrored",
    },
    "torch": {
        "none": "strategy.Strategy",
        "data_parallel": "on_torch.TorchDataParallel",
        "fsdp": "torch_fsdp.FSDP",
        "multi_worker": "on_torch.TorchDataParallel",
    },
}
# Environment variable that launchers of several processes set, and the kind
# that "auto" then means.
LAUNCHED = {
    "jax": ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "multi_worker"),
    "tensorflow": ("TF_CONFIG", "multi_worker"),
    "torch": ("WORLD_SIZE", "data_parallel"),
}


def distribute(kind="auto", **values):
    """Choose the devices on which tasks are built and trained from now on.

    Each framework distributes by its own means. Call this first, before any
    task exists. Build and compile tasks in `scope()`, and pass data through
    `dataset`.

    Args:
        kind: `"none"`: one device; `"data_parallel"`: each device has the
            model and gets a part of the batch; `"fsdp"`: the weights are
            split too (JAX, PyTorch); `"model_parallel"`: each layer
            is split (JAX); `"multi_worker"`: several processes or hosts;
            `"tpu"` (JAX); `"auto"`: data parallel over all available devices.
        **values: `devices`, int, by default all that the backend sees, or
            on JAX a list of them; `model_devices`, int, for
            `"model_parallel"`; `shard_devices`, int, for `"fsdp"`: groups of
            so many devices have all weights, by default all devices
            together. With those of one host, weights stay within it, and
            hosts send only sums of gradients; `gradient_dtype`, on PyTorch:
            `"bfloat16"` sends and sums gradients with half of the bytes, by
            default `"float32"`.

    Returns:
        A `Strategy`.

    Raises:
        ValueError: the backend does not support the kind, or there are too
            few devices.

    Example:

    ```python
    strategy = distribute("none")
    with strategy.scope():
        vqa = BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
        vqa.compile("adam")
    # vqa.fit(strategy.dataset(train_ds))
    # vqa.evaluate(strategy.dataset(test_ds, training=False))
    # strategy.save_to_preset(vqa, "trained")
    ```
    """
    backend = keras.config.backend()
    if kind == "auto":
        kind = _kind_of_machine(backend, values.get("devices"))
    table = STRATEGIES[backend]
    if kind not in table:
        raise ValueError(
            f"`kind` must be 'auto' or one of {list(table)} on {backend}. "
            f"Received: kind={kind!r}"
        )
    if kind == "none":
        strategy = _one_device(**values)
    else:
        module, name = table[kind].split(".")
        module = importlib.import_module(f"{__package__}.{module}")
        strategy = getattr(module, name)(**values)
    set_current(strategy)
    return strategy


def _one_device(devices=1):
    """Return the strategy of kind "none"."""
    if devices not in (None, 1):
        raise ValueError(
            "`devices` must be 1 or left out with the kind 'none'. "
            f"Received: devices={devices!r}"
        )
    if keras.config.backend() == "jax":
        keras.distribution.set_distribution(None)
    return Strategy()


def _kind_of_machine(backend, devices):
    """Return the kind that "auto" means, from devices and launcher."""
    variable, kind = LAUNCHED[backend]
    if variable in os.environ:
        return kind
    if devices is None and backend == "jax":
        devices = len(keras.distribution.list_devices())
    if devices is None and backend == "tensorflow":
        from keras_bridgetower.distribution import on_tensorflow

        devices = len(on_tensorflow.usable_devices())
    # A process of PyTorch has one device.
    return "data_parallel" if (devices or 1) > 1 else "none"


def device_names():
    """Return the names of the backend's devices, GPUs before the CPU."""
    if keras.config.backend() != "torch":
        return keras.distribution.list_devices()
    import torch

    gpus = range(torch.cuda.device_count())
    names = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in gpus]
    return [*names, "cpu"]
