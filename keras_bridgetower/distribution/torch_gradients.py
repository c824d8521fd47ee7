"""Averages gradients over processes of PyTorch, during the backward pass.

`DistributedDataParallel` communicates a bucket of gradients as soon as it is
complete, while others are still computed. It is given the loss alone: Keras
calls the task itself, and every weight that the loss depends on is found in its
graph.
"""

import torch
import torch.distributed as dist
from keras import ops
from torch.nn.parallel import DistributedDataParallel

from keras_bridgetower.backend.keras_private import updates


class Gradients:
    """Averages the gradients of a compiled task from now on.

    With `gradient_accumulation_steps`, only the batch that ends an update
    averages its gradients at once. Those of the batches before are added up in
    each process, and are averaged together at the end.

    Args:
        task: a compiled task. Methods of its optimizer are replaced, not those
            of the optimizer's class.
    """

    def __init__(self, task):
        self._optimizer = task.optimizer
        self._batches = updates.accumulation(self._optimizer)
        # Whether the batch ends an update; None before its backward pass.
        self._ends = None
        self._engine = DistributedDataParallel(
            _Loss(v.value for v in task.trainable_variables),
            # This also keeps the first buckets. New ones would add in another
            # order, after the first step only, and so not in a run that
            # continues there.
            find_unused_parameters=True,
            init_sync=False,
            gradient_as_bucket_view=True,
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
            return self._engine(loss)
        with self._engine.no_sync():
            return self._engine(loss)

    def apply(self, grads, trainable_variables=None):
        """Apply gradients, equal in all processes where an update ends."""
        if self._ends is None:
            raise RuntimeError(
                "With several processes of PyTorch, a `train_step` of your own "
                "must call `optimizer.scale_loss(loss).backward()`, by which "
                "gradients are averaged."
            )
        if self._ends and self._batches > 1:
            average_accumulated(self._optimizer)
        elif not self._ends:
            grads = finite_in_all(self._optimizer, grads)
        self._ends = None
        return self._apply(self._optimizer, grads, trainable_variables)


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
    given = [torch.isfinite(g).all() for g in grads if g is not None]
    here = torch.stack(given).all().to(torch.uint8)
    dist.all_reduce(here, dist.ReduceOp.MIN)
    if here:
        return grads
    return [None if g is None else ops.full_like(g, torch.nan) for g in grads]


def average_accumulated(optimizer):
    """Average what each process has accumulated. All must call it.

    Args:
        optimizer: a Keras optimizer, with or without accumulation.
    """
    kept = [v.value for v in updates.accumulated(optimizer)]
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
