"""Plans a run on many devices: what fits, how long it takes, what it costs.

Memory and operations are counted from shapes alone: tasks are built and run on
PyTorch's "meta" device, whose tensors have shapes and no values. Activations
are what PyTorch's autograd keeps for the backward pass; what JAX and TensorFlow
keep differs by what their compilers fuse.
"""

import contextlib
import dataclasses
import math
from typing import NamedTuple

import keras

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import check_part
from keras_bridgetower.data.records import usual_shards
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.epoch_order import times_fetched
from keras_bridgetower.training.recipes import task_of_recipe


class Device(NamedTuple):
    """A kind of device.

    Attributes:
        operations: float, in a second, in bfloat16 without sparsity.
        memory: float, bytes.
        machine: int, devices of a machine.
        near, far: floats, bytes that it sends in a second to devices of its
            machine, and of others.
    """

    operations: float
    memory: float
    machine: int
    near: float
    far: float


# Source: the makers' data sheets. GPUs have NVLink, and each a network adapter
# as in DGX machines; a slice of TPUs has one network of its own.
DEVICES = {
    "a100": Device(312e12, 80e9, 8, 300e9, 25e9),
    "h100": Device(989e12, 80e9, 8, 450e9, 50e9),
    "h200": Device(989e12, 141e9, 8, 450e9, 50e9),
    "v4": Device(275e12, 32e9, 4, 300e9, 300e9),
    "v5e": Device(197e12, 16e9, 4, 200e9, 200e9),
    "v5p": Device(459e12, 95e9, 4, 600e9, 600e9),
    "v6e": Device(918e12, 32e9, 4, 400e9, 400e9),
}
# Share of the memory that a plan may fill: work space needs the rest.
USABLE = 0.9
KINDS = ("data_parallel", "fsdp")


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train: how weights are kept, and what is computed again.

    Attributes:
        kind: str, as `kbt.distribute` takes it.
        checkpoint: bool, True if activations are computed again.
        memory: dict from what it holds to bytes on each device.
        needed: float, the sum of these bytes.
        fits: bool, True if they fit with the accumulation of the recipe.
        largest: int, samples of the largest batch that fits on a device.
        operations: int, floating-point operations of a row.
        sent: float, bytes that each device sends in an update.
        rows_per_second: float, samples that all devices train on.
        read: float, bytes that an object store delivers in a second, or None.
        hours: float, of the whole run.
        cost: float, the hours of all devices times the price, or None.
    """

    kind: str
    checkpoint: bool
    memory: dict
    needed: float
    fits: bool
    largest: int
    operations: int
    sent: float
    rows_per_second: float
    read: float | None
    hours: float
    cost: float | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on some devices, by each of its ways.

    Attributes:
        steps: int, updates of the run.
        passes: float, how often each row is seen, or None.
        fetched: float, how often machines together fetch each row of an object
            store in an epoch, or None.
        parameters: int, weights of the task.
        memory: float, bytes of a device that may be filled.
        ways: tuple of `Way`.
    """

    steps: int
    passes: float | None
    fetched: float | None
    parameters: int
    memory: float
    ways: tuple


def plan(
    recipe,
    device,
    devices,
    rows=None,
    *,
    utilization=0.4,
    network=None,
    machines=None,
    window=16,
    price=None,
    row_bytes=None,
):
    """Plan a run from shapes, before it starts. Needs the backend PyTorch.

    Args:
        recipe: a `Recipe`. Its encoders are taken for CLIP and RoBERTa of its
            size.
        device: str, a key of `DEVICES`, such as `"h100"`.
        devices: int, how many.
        rows: int, samples of the data set. May be omitted if the recipe has
            `steps`, and not `epochs`.
        utilization: float, share of the device's operations in bfloat16 that
            is reached. It depends on the machine: measure it.
        network: float, bytes that a device sends in a second. Hours count as
            if it computed nothing meanwhile. By default what the makers name.
        machines: int, how many have the devices; by default as usual for them.
        window: int, that of `train`, which decides what machines fetch. The
            data count as written by `write_shards`.
        price: float, price of a device for an hour.
        row_bytes: float, bytes of a sample in an object store.

    Returns:
        `Plan`.

    Raises:
        ValueError: an unknown device, devices that do not divide a batch, or
            `rows` that are missing.

    Example:

    ```python
    from keras_bridgetower import training

    recipe = training.recipes.get("pretrain_base")
    recipe = recipe.replace(dtype="mixed_bfloat16")
    planned = training.plan(recipe, "h100", 8)
    [way.kind for way in planned.ways if way.fits]
    ```
    """
    check_choice("device", device, DEVICES)
    check_count("devices", devices)
    check_part("utilization", utilization)
    for check, name, value in (
        (check_count, "rows", rows),
        (check_count, "machines", machines),
        (check_above_zero, "network", network),
        (check_above_zero, "price", price),
        (check_above_zero, "row_bytes", row_bytes),
    ):
        if value is not None:
            check(name, value)
    # A plan is counted on PyTorch.
    check_choice("KERAS_BACKEND", keras.config.backend(), ["torch"])
    parts = devices * recipe.accumulation
    if recipe.batch_size % parts:
        raise ValueError(
            "`devices` times the accumulation must divide the batch of "
            f"{recipe.batch_size}. Received: devices={devices}, "
            f"accumulation={recipe.accumulation}"
        )
    if recipe.steps is None and rows is None:
        raise ValueError(
            f"`rows` must be given: {recipe.name} has {recipe.epochs} epochs. "
            "Received: rows=None"
        )
    steps = recipe.total_steps(rows)
    one = DEVICES[device]
    machines = machines or -(-devices // one.machine)
    network = network or (one.far if machines > 1 else one.near)
    batch_rows, usable = recipe.batch_size // parts, USABLE * one.memory
    per_second = utilization * devices * one.operations
    task, counted = _counted(recipe, batch_rows)
    passes = fetched = None
    if rows is not None:
        passes = steps * recipe.batch_size / rows
        order = Shuffled(window, math.gcd(machines, recipe.micro_batch_size))
        fetched = times_fetched(usual_shards(rows), order, machines)
    ways = []
    for kind in KINDS:
        weights = weight_bytes(task, devices, kind)
        sent = sent_bytes(kind, task, devices, recipe.accumulation)
        # With whole weights a process also keeps the buckets that it sends.
        sums = (2 if kind == "data_parallel" else 1) * weights["gradients"]
        for checkpoint, (activations, row, operations) in counted.items():
            computed = recipe.batch_size * operations / per_second
            rate = recipe.batch_size / (computed + sent / network)
            hours = steps * recipe.batch_size / rate / 3600
            own = {**weights, "activations": activations}
            own["accumulated"] = sums if recipe.accumulation > 1 else 0
            needed = sum(own.values())
            fits = needed <= usable
            # A smaller batch is one of several of an update.
            free = usable - needed - (0 if fits else sums - own["accumulated"])
            largest = max(0, batch_rows + int(free // row))
            ways.append(
                Way(
                    *(kind, checkpoint, own, needed, fits, largest),
                    *(operations, sent, rate),
                    row_bytes and row_bytes * rate * (fetched or 1),
                    hours,
                    None if price is None else price * devices * hours,
                )
            )
    return Plan(
        *(steps, passes, fetched, task.count_params(), usable, tuple(ways))
    )


def _counted(recipe, rows):
    """Return a task, and what its batch needs.

    By `checkpoint` these are bytes of the batch, bytes and operations of a row.
    """
    found = {}
    with meta_device():
        task = task_of_recipe.on_new_encoders(recipe)
        sizes = []
        for number in (rows, rows + 1):
            x = features(task, number, recipe.text_length)
            sizes.append((x, output_bytes(task, x), largest_block(task, x)))
        for checkpoint in (False, True):
            if checkpoint:
                task.backbone.checkpoint_activations()
            kept, more = (
                activation_bytes(task, x) + outputs + checkpoint * block
                for x, outputs, block in sizes
            )
            operations = step_operations(task, sizes[0][0]) // rows
            found[checkpoint] = kept, more - kept, operations
    return task, found


def sent_bytes(kind, task, devices, accumulation):
    """Return the bytes that a device sends in an update, in rings.

    All-reduce sends twice the gradients, on PyTorch once an update, on JAX and
    TensorFlow once a batch. With split weights, each batch gathers these in the
    forward pass, those of blocks in the backward pass again, and scatters
    gradients.
    """
    sizes = weight_bytes(task)
    share = (devices - 1) / devices
    if kind == "data_parallel":
        return 2 * share * sizes["gradients"]
    each = sizes["weights"] + _block_bytes(task) + sizes["gradients"]
    return share * each * accumulation


def _block_bytes(task):
    # Towers may share a block.
    blocks = {id(w): w for b in task.backbone.blocks for w in b.weights}
    return _bytes(blocks.values())


class _Meta(str):
    """A name of the meta device that equals PyTorch's device object.

    Otherwise Keras finds them different and copies the tensor, and the copy
    has no gradient.
    """

    __hash__ = str.__hash__

    def lower(self):
        return self

    def __eq__(self, other):
        return str(other) == "meta"

    def __ne__(self, other):
        return not self == other


def meta_device():
    """Return a context in which Keras makes tensors without values."""
    return keras.device(_Meta("meta"))


def weight_bytes(task, devices=1, kind="data_parallel"):
    """Return bytes on each device, as a dict. AdamW has two slots a weight.

    Args:
        task: a task.
        devices: int.
        kind: `"data_parallel"` or `"fsdp"`, which splits weights over devices.
    """

    def share(weight):
        size = _bytes([weight])
        splits = any(n % devices == 0 for n in weight.shape)
        return size / devices if kind == "fsdp" and splits else size

    trained = sum(map(share, task.trainable_weights))
    found = {
        "weights": sum(map(share, task.weights)),
        "gradients": trained,
        "optimizer": 2 * trained,
    }
    if kind == "fsdp":
        # All but blocks, and at most five times a block: while one runs, the
        # next arrives and gradients leave, both by way of buffers.
        largest = max(_bytes(block.weights) for block in task.backbone.blocks)
        outside = _bytes(task.weights) - _block_bytes(task)
        found["gathered"] = outside + 5 * largest
    return found


def _bytes(weights):
    return sum(w.value.nbytes for w in weights)


def features(task, rows, tokens):
    """Return features of a batch that a task takes, as a dict of ones.

    Args:
        task: a task.
        rows, tokens: int, samples and tokens of each text.
    """
    return ones_like(task_of_recipe.features(task, rows, tokens))


def ones_like(tensors):
    """Return ones of the shapes and dtypes of tensors, in their structure."""
    return keras.tree.map_structure(
        lambda x: keras.ops.ones(x.shape, x.dtype), tensors
    )


def activation_bytes(task, x):
    """Return the bytes that autograd keeps of a task's forward pass.

    Weights are not counted, nor what the loss keeps.
    """
    with _storages_kept(task) as kept:
        task(x, training=True)
    return sum(kept.values())


def output_bytes(task, x):
    """Return the bytes of logits, their losses' copies and their gradients.

    A loss keeps its probabilities in float32, as large as the logits.
    """
    import torch

    with torch.no_grad():
        outputs = keras.tree.flatten(task(x, training=False))
    return 3 * sum(4 * o.numel() for o in outputs)


def largest_block(task, x):
    """Return the most bytes that autograd keeps of one block.

    With `checkpoint_activations`, they are there while the block runs again.
    """
    sizes, blocks = [0], task.backbone.blocks

    def measured(call):
        def run(*args, **kwargs):
            before = len(kept)
            outputs = call(*args, **kwargs)
            sizes.append(sum(list(kept.values())[before:]))
            return outputs

        return run

    for block in blocks:
        block.call = measured(block.call)
    try:
        with _storages_kept(task) as kept:
            task(x, training=True)
    finally:
        for block in blocks:
            del block.call
    return max(sizes)


@contextlib.contextmanager
def _storages_kept(task):
    """Return a context, and the bytes of each storage that autograd keeps.

    Weights are not among them.
    """
    import torch

    # A storage has one Python object as long as that is alive.
    weights = {w.value.untyped_storage() for w in task.weights}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage not in weights:
            kept[storage] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks
    with hooks(keep, lambda tensor: tensor), _fused_attention():
        yield kept


def _fused_attention():
    """Return a context in which attention without dropout keeps no weights.

    Without values PyTorch takes its slow form, which keeps them.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    slow = torch.nn.functional.scaled_dot_product_attention
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    class Fused(TorchFunctionMode):
        def __torch_function__(self, called, types, args=(), kwargs=None):
            options = kwargs or {}
            if called is slow and not options.get("dropout_p"):
                options = {n: options.get(n) for n in ("attn_mask", "scale")}
                return fused(*args, **options)[0]
            return called(*args, **options)

    return Fused()


def step_operations(task, x):
    """Return the floating-point operations of a forward and a backward pass.

    Counted are those of matrices, convolutions and attention, a multiplication
    and an addition as two.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        outputs = keras.tree.flatten(task(x, training=True))
        sum(o.sum() for o in outputs if o.requires_grad).backward()
    return counter.get_total_flops()
