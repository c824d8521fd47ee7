"""Ends all processes of a run soon after one of them has died.

In the frameworks, only a process that communicates with the dead one gets an
error. The others wait until that process has ended, too. Unloading a framework
takes seconds, or half a minute on a busy machine, for one after another.
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
            own.sendall(token.encode() + _MESSAGE.pack(strategy.index))
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
        said = peer.recv(len(token) + _MESSAGE.size, socket.MSG_WAITALL)
        if hmac.compare_digest(said[: len(token)], token):
            (peers[peer],) = _MESSAGE.unpack(said[len(token) :])
        else:
            peer.close()
