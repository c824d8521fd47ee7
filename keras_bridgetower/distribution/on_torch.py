"""Strategy for PyTorch: several processes with one device each."""

import contextlib
import json
import os

import keras
import numpy as np

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.distribution import divide_batches
from keras_bridgetower.distribution import lost_process
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import Several
from keras_bridgetower.distribution.strategy import reduce_first


class TorchDataParallel(Several):
    """Data parallel: gradients are averaged over all processes.

    Start the processes by PyTorch's launcher:
    `torchrun --nproc-per-node=2 train.py`. They communicate by NCCL on GPUs
    and by gloo on CPUs.
    """

    own_draws = staticmethod(process_seeds.select)

    def __init__(self, devices=None):
        super().__init__()
        import torch
        import torch.distributed as dist

        has_gpu = torch.cuda.is_available()
        if has_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if has_gpu else "gloo")
        self.count = self.processes = dist.get_world_size()
        self.index = dist.get_rank()
        self.check_devices(devices)
        if self.processes > 1:
            lost_process.Watch(self, os.environ.get("MASTER_ADDR"))

    def dataset(self, dataset, training=True):
        dataset = super().dataset(dataset, training)
        return divide_batches.own_pieces(dataset, self.index, self.count)

    def draw_number(self, step):
        return step * self.processes + self.index

    def gather_predictions(self, x, outputs, sizes):
        if not divide_batches.is_divided(x):
            return outputs
        counts = [json.loads(x) for x in self.gather_text(json.dumps(sizes))]
        # Gathered predictions are ordered by process, then by batch. Sort them
        # by batch, then by process.
        process_numbers = np.repeat(
            np.arange(self.processes), list(map(sum, counts))
        )
        batch_numbers = [np.repeat(np.arange(len(c)), c) for c in counts]
        order = np.lexsort((process_numbers, np.concatenate(batch_numbers)))

        def gathered(own):
            every, _ = backend_ops.all_gather(keras.ops.convert_to_tensor(own))
            return keras.ops.convert_to_numpy(every)[order]

        return keras.tree.map_structure(gathered, outputs)

    def prepare(self, task):
        super().prepare(task)
        weights = [w.value for w in task.weights]
        for weight, value in zip(weights, _from_first(weights), strict=True):
            weight.data.copy_(value)
        _draw_apart(task, self.index)
        if task.optimizer is not None:
            reduce_first(task.optimizer, _mean)

    @contextlib.contextmanager
    def summed(self, metrics):
        own = [v.value.clone() for v in metrics]
        for variable, value in zip(metrics, _sum(own), strict=True):
            variable.assign(value)
        try:
            yield
        finally:
            for variable, value in zip(metrics, own, strict=True):
                variable.assign(value)

    def keep_sums(self, metrics):
        # Process 0 has the sums, so the others start from 0.
        if self.index:
            for variable in metrics:
                variable.assign(variable * 0)

    def gather_text(self, text):
        import torch.distributed as dist

        texts = [None] * self.processes
        dist.all_gather_object(texts, text)
        return texts


def _draw_apart(task, index):
    """Let each process draw different dropout masks.

    KerasHub's layers draw from PyTorch's generator, others from their own
    seeds, so both are changed.
    """
    import torch

    seed = torch.initial_seed() % 2**63
    (start,) = _from_first([keras.ops.convert_to_tensor([seed], "int64")])
    if index:
        start = np.random.SeedSequence([int(start), index])
        torch.manual_seed(int(start.generate_state(1, "uint64")[0] >> 1))
    process_seeds.seed_apart(task, index)


def _mean(tensors):
    """Average tensors over all processes."""
    import torch.distributed as dist

    return [t / dist.get_world_size() for t in _sum(tensors)]


def _sum(tensors):
    """Sum tensors over all processes."""
    import torch.distributed as dist

    return _in_one_message(tensors, dist.all_reduce)


def _from_first(tensors):
    """Return the values of process 0."""
    import torch.distributed as dist

    return _in_one_message(
        tensors, lambda message: dist.broadcast(message, src=0)
    )


def _in_one_message(tensors, send):
    """Communicate many tensors as one message for each dtype."""
    import torch

    received = list(tensors)
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        chosen = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        message = torch.cat([tensors[i].detach().reshape(-1) for i in chosen])
        send(message)
        sizes = [tensors[i].numel() for i in chosen]
        for i, part in zip(chosen, message.split(sizes), strict=True):
            received[i] = part.view(tensors[i].shape)
    return received
