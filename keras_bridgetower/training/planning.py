"""Plans a run on many devices: what fits, how long it takes, what it costs.

Memory and operations are counted from shapes alone: tasks are built and run on
PyTorch's "meta" device, whose tensors have shapes and no values. Activations
are what PyTorch's autograd keeps for the backward pass; what JAX and TensorFlow
keep differs by what their compilers fuse.
"""

import dataclasses
import math
from typing import NamedTuple

import keras
import keras_hub

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import check_part
from keras_bridgetower.data.records.counts import usual_shards
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.epoch_order import times_fetched
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.training.recipes.task_of_recipe import LAYERS
from keras_bridgetower.training.recipes.task_of_recipe import class_and_values


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
# Width, heads, layers of the text and of the image encoder, patch side.
SIZES = {
    "base": (768, 12, 12, 12, 16),
    "large": (1024, 16, 24, 24, 14),
    "tiny": (16, 2, 2, 3, 8),
}
VOCABULARY = 50_265
# Classes that are learnt, where the number is not the task's own.
CLASSES = {"VQA": 3_129, "ImageClassifier": 100, "TextClassifier": 2}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train: how weights are kept, and what is computed again.

    Attributes:
        kind: str, as `kbt.distribute` takes it.
        checkpoint: bool, True if activations are computed again.
        memory: dict from what it holds to bytes on each device.
        accumulation: int, the fewest batches of an update that fit, or None
            if not even one row fits.
        operations: int, floating-point operations of a row.
        sent: float, bytes that each device sends in an update.
        rows_per_second: float, samples that all devices train on.
        hours: float, of the whole run.
        cost: float, the hours of all devices times the price, or None.
    """

    kind: str
    checkpoint: bool
    memory: dict
    accumulation: int | None
    operations: int
    sent: float
    rows_per_second: float
    hours: float
    cost: float | None

    @property
    def needed(self):
        """Return the bytes that each device needs."""
        return sum(self.memory.values())


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on some devices, by each of its ways.

    Attributes:
        recipe: a `Recipe`.
        device: str, a key of `DEVICES`.
        devices: int.
        steps: int, updates of the run.
        passes: float, how often each row is seen, or None.
        fetched: float, how often machines together fetch each row of an object
            store in an epoch, or None.
        parameters: int, weights of the task.
        ways: tuple of `Way`.
    """

    recipe: object
    device: str
    devices: int
    steps: int
    passes: float | None
    fetched: float | None
    parameters: int
    ways: tuple

    @property
    def memory(self):
        """Return the bytes of a device that may be filled."""
        return _usable(self.device)

    def fits(self, way):
        """Return True if a way fits with the accumulation of the recipe."""
        return way.needed <= self.memory


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
    [way.kind for way in planned.ways if planned.fits(way)]
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
    ):
        if value is not None:
            check(name, value)
    if keras.config.backend() != "torch":
        raise ValueError(
            "A plan is counted on PyTorch: set KERAS_BACKEND=torch. Received: "
            f"the backend {keras.config.backend()}"
        )
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
    per_second = utilization * devices * one.operations
    machines = machines or -(-devices // one.machine)
    network = network or (one.far if machines > 1 else one.near)
    task, counted = _counted(recipe, recipe.batch_size // parts)
    ways = []
    for kind in KINDS:
        fixed = weight_bytes(task, devices, kind)
        for checkpoint, (kept, operations) in counted.items():
            sent = sent_bytes(kind, task, devices, recipe.accumulation)
            seconds = recipe.batch_size * operations / per_second
            seconds += sent / network
            hours = steps * seconds / 3600
            ways.append(
                Way(
                    kind,
                    checkpoint,
                    _memory(kind, fixed, kept, recipe.accumulation),
                    _accumulation(kind, recipe, devices, fixed, kept, device),
                    operations,
                    sent,
                    recipe.batch_size / seconds,
                    hours,
                    None if price is None else price * devices * hours,
                )
            )
    passes = fetched = None
    if rows is not None:
        passes = steps * recipe.batch_size / rows
        order = Shuffled(window, math.gcd(machines, recipe.micro_batch_size))
        fetched = times_fetched(usual_shards(rows), order, machines)
    return Plan(
        *(recipe, device, devices, steps, passes, fetched),
        *(task.count_params(), tuple(ways)),
    )


def _counted(recipe, rows):
    """Return a task, and by `checkpoint` bytes of a batch and operations."""
    found = {}
    with meta_device():
        task = make_task(recipe)
        x = features(task, rows, recipe.text_length)
        again = largest_block(task, x)
        outputs = output_bytes(task, x)
        for checkpoint in (False, True):
            if checkpoint:
                task.backbone.checkpoint_activations()
            kept = activation_bytes(task, x) + outputs
            operations = step_operations(task, x) // rows
            found[checkpoint] = kept + checkpoint * again, operations
    return task, found


def _memory(kind, fixed, kept, accumulation):
    memory = {**fixed, "activations": kept}
    if accumulation > 1:
        # With whole weights a process also keeps the buckets that it sends.
        buckets = 2 if kind == "data_parallel" else 1
        memory["accumulated"] = buckets * fixed["gradients"]
    return memory


def _accumulation(kind, recipe, devices, fixed, kept, device):
    """Return the fewest batches of an update that fit a device, or None."""
    rows = recipe.batch_size // devices
    each = kept / (rows // recipe.accumulation)
    for parts in range(1, rows + 1):
        memory = _memory(kind, fixed, each * rows / parts, parts)
        fits = sum(memory.values()) <= _usable(device)
        if fits and rows % parts == 0:
            return parts
    return None


def _usable(device):
    """Return the bytes of a device that may be filled."""
    return USABLE * DEVICES[device].memory


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
    blocks = block_bytes(task)
    each = sizes["weights"] + blocks + sizes["gradients"]
    return share * each * accumulation


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


def make_task(recipe):
    """Return a recipe's task, which has no memory in `meta_device()`.

    Its encoders are CLIP and RoBERTa, of the size and dtype of the recipe.

    Args:
        recipe: a `Recipe`.
    """
    width, heads, text_layers, image_layers, patch = SIZES[recipe.size]
    side = recipe.image_size
    shared = {"hidden_dim": width, "num_heads": heads, "dtype": recipe.dtype}
    shared["intermediate_dim"] = 4 * width
    backbone = BridgeTowerBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=patch,
            num_layers=image_layers,
            image_shape=(side, side, 3),
            **shared,
        ),
        keras_hub.models.RobertaBackbone(
            VOCABULARY, num_layers=text_layers, **shared
        ),
        num_layers=min(LAYERS, text_layers, image_layers),
        bridge=recipe.bridge,
        dropout=recipe.dropout,
        **shared,
    )
    labels = [*map(str, range(CLASSES.get(recipe.task, 0)))]
    cls, values = class_and_values(recipe, labels)
    return cls(backbone, **values)


def weight_bytes(task, devices=1, kind="data_parallel"):
    """Return bytes on each device, as a dict. AdamW has two slots a weight.

    Args:
        task: a task.
        devices: int.
        kind: `"data_parallel"` or `"fsdp"`, which splits weights over devices.
    """

    def share(weight):
        size = _bytes(weight)
        splits = any(n % devices == 0 for n in weight.shape)
        return size / devices if kind == "fsdp" and splits else size

    trained = sum(map(share, task.trainable_weights))
    return {
        "weights": sum(map(share, task.weights)),
        "gradients": trained,
        "optimizer": 2 * trained,
    }


def block_bytes(task):
    """Return the bytes of the weights of encoder and fusion blocks."""
    weights = {id(w): w for b in task.backbone.blocks for w in b.weights}
    return sum(map(_bytes, weights.values()))


def _bytes(weight):
    return weight.value.numel() * weight.value.element_size()


def features(task, rows, tokens, device="meta"):
    """Return features of a batch that a task takes, as a dict of ones.

    Args:
        task: a task.
        rows, tokens: int, samples and tokens of each text.
        device: str, name of a device of PyTorch.
    """
    import torch

    found = {}
    for name, tensor in task.input.items():
        # Any token of a text may be masked but its first and last one.
        length = tokens - 2 * (name == "mask_positions")
        shape = (rows, *(length if n is None else n for n in tensor.shape[1:]))
        dtype = getattr(torch, tensor.dtype)
        found[name] = torch.ones(shape, dtype=dtype, device=device)
    return found


def activation_bytes(task, x):
    """Return the bytes that autograd keeps of a task's forward pass.

    Weights are not counted, nor what the loss keeps.

    Args:
        task: a task.
        x: features of a batch.
    """
    kept = _Kept(task)
    with kept.counting():
        task(x, training=True)
    return kept.size


def output_bytes(task, x):
    """Return the bytes of logits, their losses' copies and their gradients.

    A loss keeps its probabilities in float32, as large as the logits.

    Args:
        task: a task.
        x: features of a batch.
    """
    import torch

    with torch.no_grad():
        outputs = keras.tree.flatten(task(x, training=False))
    return 3 * sum(4 * o.numel() for o in outputs)


def largest_block(task, x):
    """Return the most bytes that autograd keeps of one block.

    With `checkpoint_activations`, they are there while the block runs again.

    Args:
        task: a task that keeps its activations.
        x: features of a batch.
    """
    sizes, blocks = [0], task.backbone.blocks
    kept = _Kept(task)

    def measured(call):
        def run(*args, **kwargs):
            before = kept.size
            outputs = call(*args, **kwargs)
            sizes.append(kept.size - before)
            return outputs

        return run

    own = [block.call for block in blocks]
    for block, call in zip(blocks, own, strict=True):
        block.call = measured(call)
    try:
        with kept.counting():
            task(x, training=True)
    finally:
        for block in blocks:
            del block.call
    return max(sizes)


class _Kept:
    """Counts the bytes of tensors that autograd keeps, without weights."""

    def __init__(self, task):
        # Tensors are kept alive, so that another one cannot get their memory.
        self._seen = {_storage(w.value): w.value for w in task.weights}
        self.size = 0

    def counting(self):
        import torch

        def keep(tensor):
            if self._seen.setdefault(_storage(tensor), tensor) is tensor:
                self.size += tensor.untyped_storage().nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks
        return hooks(keep, lambda tensor: tensor)


def _storage(tensor):
    """Return a value that tensors of one memory share, even without values."""
    from torch.multiprocessing import reductions

    return reductions.StorageWeakRef(tensor.untyped_storage())


def step_operations(task, x):
    """Return the floating-point operations of a forward and a backward pass.

    Counted are those of matrices, convolutions and attention, a multiplication
    and an addition as two.

    Args:
        task: a task.
        x: features of a batch.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        outputs = keras.tree.flatten(task(x, training=True))
        sum(o.sum() for o in outputs if o.requires_grad).backward()
    return counter.get_total_flops()
