"""Plans a run on many devices: what fits, how long it takes, what it costs."""

import dataclasses

import keras

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import check_part
from keras_bridgetower.training import shapes

# Operations a second in bfloat16 without sparsity, and bytes of memory. Source:
# the makers' data sheets.
DEVICES = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "v4": (275e12, 32e9),
    "v5e": (197e12, 16e9),
    "v5p": (459e12, 95e9),
    "v6e": (918e12, 32e9),
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
        parameters: int, weights of the task.
        ways: tuple of `Way`.
    """

    recipe: object
    device: str
    devices: int
    steps: int
    passes: float | None
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
    if rows is not None:
        check_count("rows", rows)
    if price is not None:
        check_above_zero("price", price)
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
    per_second = utilization * devices * DEVICES[device][0]
    task, counted = _counted(recipe, recipe.batch_size // parts)
    ways = []
    for kind in KINDS:
        fixed = shapes.weight_bytes(task, devices, kind)
        for checkpoint, (kept, operations) in counted.items():
            hours = steps * recipe.batch_size * operations / per_second / 3600
            ways.append(
                Way(
                    kind,
                    checkpoint,
                    _memory(kind, fixed, kept, recipe.accumulation),
                    _accumulation(kind, recipe, devices, fixed, kept, device),
                    operations,
                    sent_bytes(kind, task, devices, recipe.accumulation),
                    per_second / operations,
                    hours,
                    None if price is None else price * devices * hours,
                )
            )
    passes = None if rows is None else steps * recipe.batch_size / rows
    return Plan(
        *(recipe, device, devices, steps, passes),
        *(task.count_params(), tuple(ways)),
    )


def _counted(recipe, rows):
    """Return a task, and by `checkpoint` bytes of a batch and operations."""
    found = {}
    with shapes.meta_device():
        task = shapes.make_task(recipe)
        x = shapes.features(task, rows, recipe.text_length)
        again = shapes.largest_block(task, x)
        outputs = shapes.output_bytes(task, x)
        for checkpoint in (False, True):
            if checkpoint:
                task.backbone.checkpoint_activations()
            kept = shapes.activation_bytes(task, x) + outputs
            operations = shapes.step_operations(task, x) // rows
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
    return USABLE * DEVICES[device][1]


def sent_bytes(kind, task, devices, accumulation):
    """Return the bytes that a device sends in an update, in rings.

    All-reduce sends twice the gradients, on PyTorch those of the last batch and
    those of the batches before. With split weights, each batch gathers these in
    the forward pass, those of blocks in the backward pass again, and scatters
    gradients.
    """
    sizes = shapes.weight_bytes(task)
    share = (devices - 1) / devices
    if kind == "data_parallel":
        return 2 * share * sizes["gradients"] * min(accumulation, 2)
    blocks = shapes.block_bytes(task)
    each = sizes["weights"] + blocks + sizes["gradients"]
    return share * each * accumulation
