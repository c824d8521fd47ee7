"""Strategies for JAX, on `keras.distribution`, and its processes."""

import contextlib
import functools
import hashlib
import os
import random

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from keras.distribution import DeviceMesh
from keras.distribution import LayoutMap
from keras.distribution import TensorLayout

from keras_bridgetower.backend import compiled
from keras_bridgetower.backend.keras_private import trainers
from keras_bridgetower.backend.keras_private.trainers import share_seed
from keras_bridgetower.backend.keras_private.variables import temporary_values
from keras_bridgetower.checks import check_count
from keras_bridgetower.distribution import divide_batches
from keras_bridgetower.distribution.strategy import Several
from keras_bridgetower.distribution.strategy import first_devices
from keras_bridgetower.distribution.strategy import shard_count

BATCH, MODEL, GROUP, SHARD = "batch", "model", "group", "shard"
# Environment variables of several processes, which Keras reads too.
ADDRESSES, COUNT, INDEX = (
    f"KERAS_DISTRIBUTION_{name}"
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
# Seconds without a heartbeat until a process counts as failed. The others wait
# that long for it, even if they have failed themselves.
HEARTBEAT_TIMEOUT = 45
# Layers whose output has an axis of heads; a manager has a single head.
_HEADS = r"^(?!fusion/\w+_manager_).*/(query|key|value)"
# Names of dense layers whose output (`_IN`) or input (`_OUT`) is the hidden
# width.
_IN = "intermediate_dense|feedforward_intermediate_dense|dense_1|mlp/dense"
_IN += "|hidden_dense|transform|text_dense|image_dense|fused_dense"
_IN += r"|\w+_bridge_[0-9]+/hidden"
_OUT = "output_dense|feedforward_output_dense|dense_2|output_layer/output"
_OUT += r"|decoder|\w+_bridge_[0-9]+/output"
# The axis of a weight that is split among the devices of one model: attention
# heads, and the hidden width of feed-forward networks and classifiers. Token
# embeddings are split along the width, since a vocabulary may have any size. Of
# other weights, which are small or of unknown layers, each device has a copy.
MODEL_ROWS = (
    (rf"{_HEADS}/kernel", (None, MODEL, None)),
    (rf"{_HEADS}/bias", (MODEL, None)),
    (r".*/attention_output/kernel", (MODEL, None, None)),
    (rf".*/({_IN})/kernel", (None, MODEL)),
    (rf".*/({_IN})/bias", (MODEL,)),
    (rf".*/({_OUT})/kernel", (MODEL, None)),
    (r"(.*/)?token_embedding/embeddings", (None, MODEL)),
    # LoRA adapters are not split along the rank.
    (rf"{_HEADS}/lora_kernel_a", (None, MODEL, None)),
)


class _BatchLayout:
    """Mixin: copies a batch to all replicas if they cannot divide it."""

    def get_data_layout(self, data_shape):
        if not data_shape:
            return TensorLayout([], self.device_mesh)
        local = max(1, self.num_model_replicas // self.num_processes)
        if data_shape[0] % local == 0:
            return super().get_data_layout(data_shape)
        if self.num_processes > 1:
            raise ValueError(
                f"A batch must be divisible by the {local} devices of a "
                f"process. Received: {data_shape[0]} samples"
            )
        return TensorLayout([None] * len(data_shape), self.device_mesh)


class _Replicated(_BatchLayout, keras.distribution.DataParallel):
    """Each device has a copy of all weights."""


class _Sharded(_BatchLayout, keras.distribution.DataParallel):
    """Each weight and its optimizer state are split over groups of devices.

    Args:
        shard_devices: int, devices of one group, which follow each other.
        devices: list of all devices.
    """

    def __init__(self, shard_devices, devices):
        super().__init__(devices=devices, auto_shard_dataset=False)
        # A batch is split over all devices, so its mesh has one axis.
        shape = len(devices) // shard_devices, shard_devices
        self._weight_mesh = DeviceMesh(shape, (GROUP, SHARD), devices)

    def get_variable_layout(self, variable):
        spec = [None] * len(variable.shape)
        _, count = self._weight_mesh.shape
        fit = [n if n % count == 0 else 0 for n in variable.shape]
        if any(fit):
            spec[fit.index(max(fit))] = SHARD
        return TensorLayout(spec, self._weight_mesh)


class _SplitLayers(_BatchLayout, keras.distribution.ModelParallel):
    """Each layer is split by the rows of `MODEL_ROWS`."""


class DataParallel(Several):
    """Each device has the whole model and gets a part of every batch.

    A task is the same program on one device and on many. Losses are computed
    from the global batch, and the compiler adds the communication.
    """

    # A batch that cannot be divided is copied to all replicas.
    fills_replicas = False

    def __init__(self, devices=None):
        super().__init__()
        if os.environ.get(ADDRESSES):
            connect()
        self._entered, self._asked = False, 0
        self.devices = devices
        if not isinstance(devices, list):
            known = keras.distribution.list_devices()
            self.devices = first_devices(devices, known)
        self.layout = self.make_layout()
        self.count = self.layout.num_model_replicas
        self.processes = self.layout.num_processes
        if self.processes > 1:
            self.index = jax.process_index()
        trainers.check_version()
        keras.distribution.set_distribution(self.layout)

    @property
    def device_name(self):
        return f"{super().device_name} on {len(self.devices)} devices"

    def make_layout(self):
        """Return the `keras.distribution.Distribution`."""
        return _Replicated(devices=self.devices, auto_shard_dataset=False)

    def dataset(self, dataset, training=True):
        dataset = super().dataset(dataset, training)
        if self.processes == 1:
            return dataset
        dataset = divide_batches.only_divisible(dataset, self.count)
        return divide_batches.own_pieces(dataset, self.index, self.processes)

    def run(self, method, model, *args, **kwargs):
        if method in ("fit", "evaluate", "predict"):
            return trainers.jax_method(method)(model, *args, **kwargs)
        return super().run(method, model, *args, **kwargs)

    def draw_number(self, step):
        return step * self.processes + self.index

    def readable_outputs(self, outputs):
        outputs, state = outputs
        return compiled.on_all_devices(outputs), state

    def holds(self, variable):
        sharding = variable.value.sharding
        return len(self.devices) == 1 or not isinstance(
            sharding, jax.sharding.SingleDeviceSharding
        )

    @contextlib.contextmanager
    def scope(self):
        if self.processes > 1 and not self._entered:
            self.check_seeds()
        self._entered = True
        with super().scope():
            yield

    @contextlib.contextmanager
    def gathered(self, task):
        if self.processes == 1:
            # One process can read the shards of all its devices.
            yield
            return
        values = [process_allgather(v.value, True) for v in task.variables]
        with temporary_values(task.variables, values):
            yield

    def whole(self, variable):
        # Those that `gathered` has gathered are NumPy arrays.
        if getattr(variable.value, "is_fully_addressable", True):
            return super().whole(variable)
        return np.asarray(process_allgather(variable.value, True))

    def all_gather(self, array):
        return np.asarray(process_allgather(array))

    @property
    def notes_sigterm(self):
        return self.processes > 1

    def must_stop(self, signaled):
        if self.processes == 1:
            return signaled
        # JAX's coordinator sends word of a SIGTERM and agrees on a step, so
        # that no step needs a collective. Steps must be consecutive.
        self._asked += 1
        return multihost_utils.reached_preemption_sync_point(self._asked)

    def check_seeds(self):
        """Raise in every process unless all will draw the same initial weights.

        Raises:
            ValueError: the random states differ. JAX itself would raise in one
                process only.
        """
        # Keras draws default seeds from Python's random generator.
        state = hashlib.sha256(repr(random.getstate()).encode()).hexdigest()[:8]
        states = self.gather_text(state)
        if len(set(states)) > 1:
            raise ValueError(
                "All processes must begin with the same weights: call "
                f"`keras.utils.set_random_seed`. Received: states {states}"
            )


class FSDP(DataParallel):
    """Data parallel with weights and optimizer split over the devices.

    Args:
        devices: as for `DataParallel`.
        shard_devices: int, as for `distribute`.
    """

    def __init__(self, devices=None, shard_devices=None):
        self._shard_devices = shard_devices
        super().__init__(devices)

    def make_layout(self):
        count = shard_count(self._shard_devices, len(self.devices))
        return _Sharded(count, self.devices)

    def gathered_weights(self, values, variables):
        # Otherwise the compiler may split activations as the weights, and send
        # activations of all rows in place of weights.
        mesh = self.layout.device_mesh.backend_mesh
        whole = NamedSharding(mesh, PartitionSpec())

        def gathered(value, variable):
            placed = self.layout.get_variable_layout(variable).backend_layout
            return _gather(value, whole, placed)

        return [*map(gathered, values, variables)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(weight, whole, placed):
    """Gather a weight; each device gets the sum of its part's gradients."""
    return jax.lax.with_sharding_constraint(weight, whole)


def _forward(weight, whole, placed):
    return _gather(weight, whole, placed), None


def _backward(whole, placed, _, gradient):
    return (jax.lax.with_sharding_constraint(gradient, placed),)


_gather.defvjp(_forward, _backward)


class ModelParallel(DataParallel):
    """Groups of devices, within which the layers of a model are split.

    Args:
        devices: int, number of devices in all groups, or None for all
            devices.
        model_devices: int, devices of one group.
    """

    def __init__(self, devices=None, model_devices=2):
        check_count("model_devices", model_devices)
        self.model_devices = model_devices
        super().__init__(devices)

    def make_layout(self):
        count = len(self.devices)
        mesh = DeviceMesh(
            (count // self.model_devices, self.model_devices),
            (BATCH, MODEL),
            self.devices,
        )
        layouts = LayoutMap(mesh)
        for pattern, axes in MODEL_ROWS:
            layouts[pattern] = axes
        return _SplitLayers(
            layout_map=layouts, batch_dim_name=BATCH, auto_shard_dataset=False
        )


class MultiWorker(DataParallel):
    """Data parallel over the devices of several processes or hosts.

    Their addresses come from the environment variables
    `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `..._NUM_PROCESSES` and
    `..._PROCESS_ID`; on a TPU slice from the machine.
    """

    def __init__(self, devices=None):
        connect()
        super().__init__(devices)


def connect():
    """Connect the processes, as `keras.distribution.initialize` does.

    Keras' function would keep JAX's heartbeat timeout of 100 seconds.

    Raises:
        ValueError: the processes cannot be connected.
    """
    if jax.distributed.is_initialized():
        return  # By an earlier call of `distribute`.
    addresses, count, index = map(os.environ.get, (ADDRESSES, COUNT, INDEX))
    try:
        jax.distributed.initialize(
            # Process 0 is the coordinator.
            addresses and addresses.split(",")[0],
            count and int(count),
            index and int(index),
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "The processes must find each other, before anything runs on a "
            f"device: set {ADDRESSES}, {COUNT} and {INDEX}. On one machine use "
            f"'data_parallel'. Received: {error}"
        ) from error
    share_seed()
