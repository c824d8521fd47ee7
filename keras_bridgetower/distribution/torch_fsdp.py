"""Strategy for PyTorch that splits weights over processes, by `fully_shard`.

During `fit` a process has all values of a block's weights only while it runs
the block. Gradients and the optimizer's variables are those of its part. Before
and after `fit` the weights are whole, as everything else needs them.
"""

import contextlib
import functools
import weakref

import keras
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import Shard

from keras_bridgetower.backend import remat
from keras_bridgetower.backend.keras_private import updates
from keras_bridgetower.backend.keras_private import variables as keras_variables
from keras_bridgetower.distribution.on_torch import TorchDataParallel
from keras_bridgetower.distribution.strategy import shard_count
from keras_bridgetower.distribution.torch_gradients import add
from keras_bridgetower.distribution.torch_gradients import finite_in_all

# An update of these is one of each value, so parts can be updated apart.
OPTIMIZERS = ("SGD", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Lion")


class FSDP(TorchDataParallel):
    """Data parallel with weights, gradients and optimizer split over processes.

    Start the processes by `torchrun`. Checkpoints continue on any number of
    processes.

    Args:
        devices: int, number of all processes.
        shard_devices, gradient_dtype: as for `distribute`.
    """

    # Each process adds up what all have computed of its parts.
    stops_within_updates = True

    def __init__(self, devices=None, shard_devices=None, **kwargs):
        super().__init__(devices, **kwargs)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        count = shard_count(shard_devices, self.processes)
        shape, names = (self.processes // count, count), ("group", "shard")
        if count == self.processes:
            shape, names = shape[1:], names[1:]
        self._mesh = init_device_mesh(device, shape, mesh_dim_names=names)
        # By task. A task can be compiled again.
        self._shards = weakref.WeakKeyDictionary()

    def average_gradients(self, task):
        optimizer = getattr(task.optimizer, "inner_optimizer", task.optimizer)
        names = {cls.__name__ for cls in type(optimizer).__mro__}
        if not names & set(OPTIMIZERS):
            raise ValueError(
                f"The kind 'fsdp' needs one of the optimizers {OPTIMIZERS}, or "
                f"a subclass. Received: {type(optimizer).__name__}"
            )
        if task not in self._shards:
            self._shards[task] = Shards(task, self._mesh, self.gradient_dtype)
        self._shards[task].train_with(task.optimizer)

    def run(self, method, model, *args, **kwargs):
        shards = self._shards.get(model)
        running = contextlib.nullcontext()
        if shards is not None:
            shards.recover()
            if method == "fit":
                _check_callbacks(kwargs.get("callbacks") or ())
                running = shards.split()
        with running:
            return super().run(method, model, *args, **kwargs)

    @contextlib.contextmanager
    def gathered(self, task):
        weights = {id(w) for w in task.weights}
        with contextlib.ExitStack() as stack:
            for shards in self._shards.values():
                if weights & shards.of_weight.keys():
                    shards.recover()
                    if shards.active:
                        stack.enter_context(shards.whole())
            yield

    def share_accumulated(self, optimizer):
        """Do nothing: each process has the sums of its parts."""

    def whole(self, variable):
        for shards in self._shards.values():
            part = shards.find_part(variable)
            if part is not None:
                values = part.full_tensor()
                values = values if self.is_chief else values[:0]
                return keras.ops.convert_to_numpy(values)
        return super().whole(variable)

    def own_rows(self, task, variable, array):
        shards = self._shards.get(task)
        return array if shards is None else shards.own_rows(variable, array)


class Shards:
    """The weights of a task, each process with a part of every one.

    Args:
        task: a task, whose blocks are gathered one after the other.
        mesh: the `DeviceMesh` of all processes. Those of its axis `"shard"`
            have one copy of the weights together.
        gradient_dtype: str, in which gradients are sent and summed.

    Attributes:
        active: bool, True during `fit`.
        of_weight: dict from the id of a variable to its parameter, a `DTensor`.
    """

    def __init__(self, task, mesh, gradient_dtype="float32"):
        self.active, self.of_weight = False, {}
        self._task = weakref.ref(task)
        self._all, self._mesh = mesh, mesh["shard"]
        dtype = getattr(torch, gradient_dtype)
        self._policy = MixedPrecisionPolicy(reduce_dtype=dtype)
        self._parts, self._references, self._own = (), {}, ()
        self._optimizer, self._failed, self._ran = None, False, False

    def _divide(self):
        """Divide the weights, once. They stay whole for now."""
        if self._parts:
            return
        task = self._task()
        _check_weights(task)
        weights = {
            id(v): v
            for v in task.weights
            if v.value.dtype == torch.float32 and v.shape
        }
        blocks = _blocks(task)
        parts = [
            _Part(weights.pop(id(v)) for v in block.weights if id(v) in weights)
            for block in blocks
        ]
        self._parts = (*parts, _Part(weights.values(), parts))
        # The inner ones first, so that the last has what is left.
        for part in self._parts:
            fully_shard(part, mesh=self._all, mp_policy=self._policy)
        for part in self._parts:
            pairs = zip(part.variables, part.weights, strict=True)
            self.of_weight |= {id(v): p for v, p in pairs}
            part.unshard()
            part.gathered = tuple(part.weights)
            part.reshard()
        for layer, part in zip((*blocks, task), self._parts, strict=True):
            self._gather_during_call(layer, part)

    def _gather_during_call(self, layer, part):
        own = layer.call

        def call(*args, **kwargs):
            # In the backward pass a block that runs again is gathered already.
            if not self.active or remat.is_running(layer):
                return own(*args, **kwargs)
            leaves = keras.tree.flatten((args, kwargs))
            if any(_has_no_values(x) for x in leaves):
                return own(*args, **kwargs)
            self._ran = True
            return part(own, *args, **kwargs)

        layer.call = call

    def train_with(self, optimizer):
        """Let an optimizer update the parts that this process has.

        Args:
            optimizer: a Keras optimizer, whose methods are replaced, not those
                of its class. Its variables are those of the parts.
        """
        if optimizer.built:
            if optimizer is self._optimizer:
                return
            raise ValueError(
                "`compile` must get a new optimizer with the kind 'fsdp'. "
                f"Received: {optimizer.name!r}, which has been built"
            )
        self._optimizer = optimizer
        cls, finalize = type(optimizer), optimizer.finalize_variable_values
        build = functools.partial(cls.build, optimizer)
        groups = self._all.size() // self._mesh.size()
        sum_squares = functools.partial(_sum_squares, groups=groups)
        updates.clip_by_sums(optimizer, sum_squares)
        updates.decay_weights_of_parts(optimizer)

        def build_parts(variables):
            if optimizer.built:
                return
            self._divide()
            self._references = {}
            self._trained = self._task().trainable_variables
            self._own = [
                keras_variables.with_value(v, self._own_value(v))
                for v in self._trained
            ]
            with updates.references(optimizer, self._references):
                build(self._own)

        def apply_parts(grads, trainable_variables=None):
            if not self.active:
                raise RuntimeError(
                    "Weights are split during `fit` alone: with the kind "
                    "'fsdp' call it in place of `train_on_batch`."
                )
            grads = finite_in_all(optimizer, self._gradients())
            cls.apply(optimizer, grads, self._own)

        def finalize_parts(variables):
            # A `Checkpoint` calls it after `fit`.
            with contextlib.nullcontext() if self.active else self.split():
                finalize(self._own)

        optimizer.build = build_parts
        optimizer.apply = apply_parts
        optimizer.finalize_variable_values = finalize_parts

    def _own_value(self, variable):
        """Return what this process has of a weight: scalars are whole."""
        part = self._part(variable)
        if part is None:
            return variable.value.detach()
        return part.detach().to_local()

    def _gradients(self):
        """Return the gradients of the parts, averaged over all processes."""
        grads = {}
        for variable in self._trained:
            part = self._part(variable)
            if part is None:
                if variable.value.grad is not None:
                    (total,) = add([variable.value.grad])
                    grads[id(variable)] = total / self._all.size()
            elif part.grad is not None:
                grads[id(variable)] = part.grad.to_local()
                part.grad = None
        return [grads.get(id(v)) for v in self._trained]

    def _part(self, variable):
        return self.of_weight.get(id(variable))

    @contextlib.contextmanager
    def split(self):
        """Split the weights in the context; afterwards they are whole.

        After an error they are whole when all processes call `recover`: one
        that fails alone must not wait for the others.
        """
        optimizer = self._task().optimizer
        if not optimizer.built:
            optimizer.build(self._task().trainable_variables)
        trained = {id(v) for v in self._trained}
        self._failed = True
        for part in self._parts:
            for variable, gathered in zip(
                part.variables, part.gathered, strict=True
            ):
                parameter = self._part(variable)
                own = parameter.detach().to_local()
                own.copy_(select_rows(variable.value.detach(), own, self._mesh))
                # It may have been frozen or not in another `fit`.
                for x in (parameter, gathered):
                    x.requires_grad_(id(variable) in trained)
                    x.grad = None
            part.set_split()
        self.active = True
        try:
            yield
        finally:
            self.active = False
        self._failed = False
        for part in self._parts:
            part.set_whole()

    def recover(self):
        """Make the weights whole after an error in `fit`. All must call it."""
        if self._failed and not self.active:
            self._failed = False
            if self._ran:
                self._parts[-1].reset_iter_state()
            for part in self._parts:
                part.set_whole()

    @contextlib.contextmanager
    def whole(self):
        """Gather the weights in the context, between two steps, to read."""
        for part in self._parts:
            part.set_whole()
        self.active = False
        try:
            yield
        finally:
            self.active = True
            for part in self._parts:
                part.set_split()

    def find_part(self, variable):
        """Return the `DTensor` of a variable of the optimizer if it is split.

        Else None.
        """
        weight = self._find_weight(variable)
        if weight is None:
            return None
        shape = tuple(weight.shape)
        return DTensor.from_local(
            variable.value.detach(),
            self._mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size(shape),
            stride=torch.empty(shape, device="meta").stride(),
        )

    def own_rows(self, variable, array):
        """Return what this process keeps of a variable of the optimizer."""
        if self._find_weight(variable) is None:
            return array
        return select_rows(array, variable, self._mesh)

    def _find_weight(self, variable):
        """Return the split weight of a variable of the optimizer, or None."""
        made = self._references.get(id(variable))
        weight = getattr(made, "stands_for", None)
        return weight if id(weight) in self.of_weight else None


class _Part(torch.nn.Module):
    """Weights that are gathered together, while a function is called.

    Attributes:
        variables: tuple of the variables of Keras.
        weights: their parameters, which `fully_shard` replaces by parts.
        gathered: tuple of those that have all values during a call.
    """

    def __init__(self, variables, parts=()):
        super().__init__()
        self.variables = tuple(variables)
        # In a tuple, which PyTorch does not search for parameters.
        self._own = tuple(v.value for v in self.variables)
        self.weights = torch.nn.ParameterList(self._own)
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, call, *args, **kwargs):
        return call(*args, **kwargs)

    def set_split(self):
        """Let the variables read what is gathered, and free the whole ones."""
        for own in self._own:
            own.data = own.data.new_empty(0)
        keras_variables.set_values(self.variables, self.gathered)

    def set_whole(self):
        """Let the variables read copies, since NumPy would fix their memory."""
        # After an evaluation it may be gathered from before an update.
        self.reshard()
        self.unshard()
        for own, weight in zip(self._own, self.gathered, strict=True):
            own.data = weight.detach().clone()
        keras_variables.set_values(self.variables, self._own)
        self.reshard()


def _blocks(task):
    """Return the blocks of a task's encoders and fusion, without repeated ones.

    A block that is there twice would be released after its first run.
    """
    found = getattr(task.backbone, "blocks", [])
    return [block for block in found if found.count(block) == 1]


def select_rows(whole, part, mesh):
    """Return the rows of a whole value that are the part of a process.

    Args:
        whole: tensor or array, divided as by `torch.chunk`.
        part: tensor or variable with as many rows as this process has.
        mesh: the `DeviceMesh`.
    """
    start = mesh.get_local_rank() * -(-whole.shape[0] // mesh.size())
    start = min(start, whole.shape[0])
    return whole[start : start + part.shape[0]]


def _check_weights(task):
    """Raise if the weights of a task cannot be split."""
    trained = {id(w) for w in task.trainable_weights}
    for w in task.weights:
        learns = id(w) in trained
        odd = {
            "in another dtype than float32": learns and w.dtype != "float32",
            "with a constraint": learns and w.shape and w.constraint,
            "with a regularizer": w.regularizer,
        }
        for what in filter(odd.get, odd):
            raise ValueError(
                f"The kind 'fsdp' splits no weights {what}. Received: "
                f"{w.path!r}"
            )


def _check_callbacks(callbacks):
    """Raise for callbacks of Keras that read weights while they are split."""
    names = ("ModelCheckpoint", "BackupAndRestore", "SwapEMAWeights")
    kinds = tuple(getattr(keras.callbacks, name) for name in names)
    for callback in callbacks:
        reads = isinstance(callback, kinds)
        if reads or getattr(callback, "restore_best_weights", False):
            raise ValueError(
                "With the kind 'fsdp' weights are split during `fit`: use a "
                "`Checkpoint`, or `with strategy.gathered(task)` in a callback "
                f"of your own. Received: {type(callback).__name__}"
            )


def _has_no_values(x):
    return isinstance(x, keras.KerasTensor) or (
        isinstance(x, torch.Tensor) and x.is_meta
    )


def _sum_squares(gradients, groups):
    """Return the sum of the squares of each gradient in all processes.

    Args:
        gradients: list of tensors.
        groups: int, number of copies of the weights.
    """
    # Every process has whole scalars.
    copies = {True: groups, False: dist.get_world_size()}
    squares = [g.square().sum() / copies[g.dim() > 0] for g in gradients]
    (sums,) = add([torch.stack(squares)])
    return sums
