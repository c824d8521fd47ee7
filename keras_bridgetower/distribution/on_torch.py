"""Strategy for PyTorch: several processes with one device each.

If one of them dies, PyTorch tells only those that communicate with it. The
others wait until these have ended, too, for seconds each. So each process also
watches a connection, and all end soon.
"""

import contextlib
import hmac
import json
import multiprocessing.util
import os
import secrets
import socket
import struct
import sys
import threading
import time
import traceback
import warnings

import keras
import numpy as np
import torch
import torch.distributed as dist

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import check_choice
from keras_bridgetower.distribution import divide_batches
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution import torch_gradients
from keras_bridgetower.distribution.strategy import Several
from keras_bridgetower.distribution.strategy import check_batch_norms


class TorchDataParallel(Several):
    """Data parallel: gradients are averaged over all processes.

    Start the processes by PyTorch's launcher:
    `torchrun --nproc-per-node=2 train.py`. They communicate by NCCL on GPUs
    and by gloo on CPUs.

    Args:
        devices, gradient_dtype: as for `distribute`.
    """

    own_draws = staticmethod(process_seeds.select)
    # It would add up what processes have accumulated in another order.
    stops_within_updates = False

    def __init__(self, devices=None, gradient_dtype="float32"):
        super().__init__()
        check_choice("gradient_dtype", gradient_dtype, ["float32", "bfloat16"])
        self.gradient_dtype = gradient_dtype
        has_gpu = torch.cuda.is_available()
        if has_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if has_gpu else "gloo")
        self.count = self.processes = dist.get_world_size()
        self.index = dist.get_rank()
        self.check_devices(devices)
        if self.processes > 1:
            Watch(self, os.environ.get("MASTER_ADDR"))

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
        check_batch_norms(task, self)
        weights = [w.value for w in task.weights]
        equal = torch_gradients.from_first(weights)
        for weight, value in zip(weights, equal, strict=True):
            weight.data.copy_(value)
        _draw_apart(task, self.index)
        if task.optimizer is not None and task.trainable_variables:
            self.average_gradients(task)

    def average_gradients(self, task):
        """Let the optimizer of a task get the gradients of all processes."""
        torch_gradients.Gradients(task, self.gradient_dtype)

    def share_accumulated(self, optimizer):
        torch_gradients.average_accumulated(optimizer)

    @contextlib.contextmanager
    def summed(self, metrics):
        own = [v.value.clone() for v in metrics]
        for variable, value in zip(
            metrics, torch_gradients.add(own), strict=True
        ):
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
        texts = [None] * self.processes
        dist.all_gather_object(texts, text)
        return texts


def _draw_apart(task, index):
    """Let each process draw different dropout masks.

    KerasHub's layers draw from PyTorch's generator, others from their own
    seeds, so both are changed.
    """
    seed = torch.initial_seed() % 2**63
    (start,) = torch_gradients.from_first(
        [keras.ops.convert_to_tensor([seed], "int64")]
    )
    if index:
        start = np.random.SeedSequence([int(start), index])
        torch.manual_seed(int(start.generate_state(1, "uint64")[0] >> 1))
    process_seeds.seed_apart(task, index)


# Seconds in which a process may end by its own error. The documented limit is
# 10 seconds from the death of a process to the end of the others.
_GRACE = 3
# Timeout of connecting, in seconds.
_CONNECT = 10
# A process counts as dead if its network or host is silent for 45 s.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}
# A message is the index of a lost process, or `_DONE` from a finished sender.
_MESSAGE, _DONE = struct.Struct("!i"), -1
_LOST = (
    "ProcessError: Process {lost} of {count} has ended before the others, so "
    "this one ends too. Read the output of process {lost}."
)


class Watch:
    """Watches connections to the other processes, which close when one dies.

    Process 0 is connected to all others and reports a lost one to them.
    Threads wait for this, so steps cost nothing. Once a process is lost, this
    one has a few seconds to end by its own error. Then it prints the error and
    exits with code 1, whatever it is doing. A process that finishes sends a
    message first.

    Args:
        strategy: a `Strategy`; every process must call this.
        host: str, address of process 0, or None for its host name.
    """

    def __init__(self, strategy, host=None):
        self._count = strategy.processes
        self._peers = _connected(strategy, host)
        self._known = threading.Event()
        self._lost, self._has_left = None, False
        for peer in self._peers.items():
            threading.Thread(target=self._wait, args=peer, daemon=True).start()
        # Runs at the end of this process, and when the strategy is deleted.
        # `atexit` would not run in processes of `multiprocessing`.
        multiprocessing.util.Finalize(strategy, self._leave, exitpriority=-1)

    def _wait(self, peer, index):
        lost = _received(peer, index)
        # This process may have closed the connection. Other processes end
        # because the first one was lost.
        if lost == _DONE or self._has_left or self._known.is_set():
            return
        self._lost = lost
        self._send(lost)
        self._known.set()
        time.sleep(_GRACE)
        self._end()

    def _end(self):
        text = _LOST.format(lost=self._lost, count=self._count)
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
            sys.stdout.flush()
        os._exit(1)

    def _send(self, message):
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sendall(_MESSAGE.pack(message))

    def _leave(self):
        error = sys.exc_info()[1] or getattr(sys, "last_value", None)
        failed = error is not None and not isinstance(error, SystemExit)
        if self._known.wait(1 if failed else 0):
            # Unloading a framework, for example, could take too long.
            if sys.exc_info()[1]:
                # `multiprocessing` has not printed it yet.
                traceback.print_exc()
            self._end()
        self._has_left = True
        if not failed:
            self._send(_DONE)
        for peer in self._peers:
            with contextlib.suppress(OSError):
                # Unlike `close`, this ends the thread that reads.
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


def _received(peer, index):
    """Return the message of a peer, or its index if it has disconnected."""
    message = b""
    with contextlib.suppress(OSError):
        message = peer.recv(_MESSAGE.size, socket.MSG_WAITALL)
    complete = len(message) == _MESSAGE.size
    return _MESSAGE.unpack(message)[0] if complete else index


def _connected(strategy, host):
    """Connect process 0 with each other process.

    Returns:
        dict from sockets to the indices of the connected processes.
    """
    listener, offer, expected = None, None, 1
    if strategy.is_chief:
        expected = strategy.processes - 1
        listener = socket.create_server(("", 0), backlog=expected)
        port = listener.getsockname()[1]
        offer = [socket.gethostname(), port, secrets.token_hex(16)]
    name, port, token = json.loads(strategy.gather_text(json.dumps(offer))[0])
    peers, address = {}, (host or name, port)
    with contextlib.suppress(OSError):
        if listener is None:
            own = socket.create_connection(address, _CONNECT)
            # Process 0 may wait for a connection that says nothing.
            own.settimeout(3 * _CONNECT)
            own.sendall(token.encode() + _MESSAGE.pack(strategy.index))
            if own.recv(len(token), socket.MSG_WAITALL) == token.encode():
                peers[own] = 0
        else:
            with listener:
                _accept(listener, token.encode(), expected, peers)
    if len(peers) < expected:
        warnings.warn(
            f"Process {strategy.index} has {len(peers)} of {expected} "
            f"connections by {address}. If a process dies, the others end only "
            "when the framework notices it.",
            stacklevel=2,
        )
    for peer in peers:
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                number = getattr(socket, option)
                peer.setsockopt(socket.IPPROTO_TCP, number, value)
    return peers


def _accept(listener, token, count, peers):
    """Add `count` connections of processes that know the token to `peers`."""
    # Longer than the others try to connect.
    listener.settimeout(2 * _CONNECT)
    while len(peers) < count:
        peer, _ = listener.accept()
        peer.settimeout(_CONNECT)
        # Whatever else connects must not end the loop.
        with contextlib.suppress(OSError):
            said = peer.recv(len(token) + _MESSAGE.size, socket.MSG_WAITALL)
            if hmac.compare_digest(said[: len(token)], token):
                peer.sendall(token)
                (peers[peer],) = _MESSAGE.unpack(said[len(token) :])
                continue
        peer.close()
