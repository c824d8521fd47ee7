"""Averages gradients over processes of PyTorch, during the backward pass.

`DistributedDataParallel` communicates a bucket of gradients as soon as it is
complete, while others are still computed. It is given the loss alone: Keras
calls the task itself, and every weight that the loss depends on is found in its
graph.
"""

import torch
import torch.distributed as dist
from keras import ops
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from keras_bridgetower.backend.keras_private import updates


class Gradients:
    """Averages the gradients of a compiled task from now on.

    With `gradient_accumulation_steps`, gradients are averaged once an update:
    each process adds up those of its batches, and in the backward pass of the
    last one it sends the sums.

    Args:
        task: a compiled task. Methods of its optimizer are replaced, not those
            of the optimizer's class.
        dtype: str, in which gradients are sent and summed.
    """

    def __init__(self, task, dtype):
        self._optimizer = task.optimizer
        # Whether the batch ends an update; None before its backward pass.
        self._ends = None
        # Weights, and the hooks that add what was accumulated, by number.
        self._adding = {}
        self._engine = DistributedDataParallel(
            _Loss(v.value for v in task.trainable_variables),
            # This also keeps the first buckets. New ones would add in another
            # order, after the first step only, and so not in a run that
            # continues there.
            find_unused_parameters=True,
            init_sync=False,
            gradient_as_bucket_view=True,
        )
        if dtype == "bfloat16":
            # By its own name PyTorch refuses the hook where there is no NCCL.
            send = default_hooks.bf16_compress_hook
            self._engine.register_comm_hook(
                None, lambda group, bucket: send(group, bucket)
            )
        # Bound to the class, so that a second `compile` takes their place.
        self._scale = type(self._optimizer).scale_loss
        self._apply = type(self._optimizer).apply
        self._optimizer.scale_loss = self.scale_loss
        self._optimizer.apply = self.apply

    def scale_loss(self, loss):
        """Return the scaled loss, whose backward pass communicates."""
        loss = self._scale(self._optimizer, loss)
        self._ends = updates.ends_update(self._optimizer)
        if self._ends:
            self._add_accumulated(self._scale(self._optimizer, 1.0))
            return self._engine(loss)
        with self._engine.no_sync():
            return self._engine(loss)

    def _add_accumulated(self, scale):
        """Add what was accumulated to the gradients of the backward pass.

        It is added before the buckets are sent, and only to weights that the
        loss depends on.

        Args:
            scale: number or scalar tensor, the scale of the loss.
        """
        # After an error, those of a batch before are still there.
        self._stop_adding()
        pairs = updates.accumulated(self._optimizer)
        for number, (weight, kept) in enumerate(pairs):

            def add_kept(gradient, number=number, kept=kept.value):
                self._adding.pop(number)[1].remove()
                return gradient + (kept * scale).to(gradient.dtype)

            handle = weight.value.register_hook(add_kept)
            self._adding[number] = weight, handle

    def _stop_adding(self):
        """Remove the hooks that are left, and return their weights."""
        left, self._adding = [*self._adding.values()], {}
        for _, handle in left:
            handle.remove()
        return [weight for weight, _ in left]

    def apply(self, grads, trainable_variables=None):
        """Apply gradients, equal in all processes where an update ends."""
        if self._ends is None:
            raise RuntimeError(
                "With several processes of PyTorch, a `train_step` of your own "
                "must call `optimizer.scale_loss(loss).backward()`, by which "
                "gradients are averaged."
            )
        if self._ends:
            self._forget_accumulated(grads)
        else:
            grads = finite_in_all(self._optimizer, grads)
        self._ends = None
        return self._apply(self._optimizer, grads, trainable_variables)

    def _forget_accumulated(self, grads):
        """Set to zero what the gradients of the backward pass have now.

        If these are not finite, the optimizer leaves out the last batch, and
        the others are averaged by themselves.
        """
        left = self._stop_adding()
        if late := [w.path for w in left if w.value.grad is not None]:
            raise RuntimeError(
                "The last batch of an update must use the same weights in all "
                f"processes. Received: {late[:5]}, which only others use"
            )
        kept = [v.value for _, v in updates.accumulated(self._optimizer)]
        if kept and _are_finite(grads):
            torch._foreach_zero_(kept)
        else:
            average_accumulated(self._optimizer)


class _Loss(torch.nn.Module):
    """Returns a loss; its parameters are the weights that learn from it."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.ParameterList(weights)

    def forward(self, loss):
        return loss


def finite_in_all(optimizer, grads):
    """Return gradients that are not finite if those of any process are not.

    Loss scaling leaves out such a batch. `AdamW` asks all processes itself.
    """
    if not hasattr(optimizer, "inner_optimizer"):
        return grads
    here = _are_finite(grads).to(torch.uint8)
    dist.all_reduce(here, dist.ReduceOp.MIN)
    if here:
        return grads
    return [None if g is None else ops.full_like(g, torch.nan) for g in grads]


def _are_finite(grads):
    """Return a bool tensor: whether all gradients that are not None are."""
    given = [torch.isfinite(g).all() for g in grads if g is not None]
    return torch.stack(given).all()


def average_accumulated(optimizer):
    """Average what each process has accumulated. All must call it.

    Args:
        optimizer: a Keras optimizer, with or without accumulation.
    """
    kept = [v.value for _, v in updates.accumulated(optimizer)]
    for value, total in zip(kept, add(kept), strict=True):
        value.copy_(total / dist.get_world_size())


def add(tensors):
    """Sum tensors over all processes."""
    return _in_one_message(tensors, dist.all_reduce)


def from_first(tensors):
    """Return the values of process 0."""
    return _in_one_message(
        tensors, lambda message: dist.broadcast(message, src=0)
    )


def _in_one_message(tensors, send):
    """Communicate many tensors as one message for each dtype."""
    received = list(tensors)
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        chosen = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        message = torch.cat([tensors[i].detach().reshape(-1) for i in chosen])
        send(message)
        sizes = [tensors[i].numel() for i in chosen]
        for i, part in zip(chosen, message.split(sizes), strict=True):
            received[i] = part.view(tensors[i].shape)
    return received
