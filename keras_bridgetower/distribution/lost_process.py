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
    "Process {lost} of {count} has ended before the others, so this one ends "
    "too. Read the output of process {lost}: it was killed, or an error ended "
    "it. Started again, all processes continue from the newest checkpoint."
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

    def lost(self, seconds=1):
        """Return a text about a lost process, or "" if there is none.

        Args:
            seconds: float, maximum time to wait for one, because a framework
                may notice a closed connection first.
        """
        if not self._known.wait(seconds):
            return ""
        return _LOST.format(lost=self._lost, count=self._count)

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
        # Imported here because `strategy` imports this module.
        from keras_bridgetower.distribution.strategy import ProcessError

        name = f"{ProcessError.__module__}.{ProcessError.__name__}"
        print(f"{name}: {self.lost()}", file=sys.stderr)
        _exit()

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
            _exit()
        self._has_left = True
        if not failed:
            self._send(_DONE)
        for peer in self._peers:
            with contextlib.suppress(OSError):
                # Unlike `close`, this ends the thread that reads.
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


def _exit():
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(1)


def _received(peer, index):
    """Return the message of a peer, or its index if it has disconnected."""
    try:
        message = _read(peer, _MESSAGE.size)
    except OSError:
        message = b""
    complete = len(message) == _MESSAGE.size
    return _MESSAGE.unpack(message)[0] if complete else index


def _connected(strategy, host):
    """Connect process 0 with each other process.

    Returns:
        dict from sockets to the indices of the connected processes.
    """
    listener, offer = None, None
    if strategy.is_chief:
        both = socket.has_dualstack_ipv6()
        listener = socket.create_server(
            ("", 0),
            family=socket.AF_INET6 if both else socket.AF_INET,
            backlog=strategy.processes,
            dualstack_ipv6=both,
        )
        port = listener.getsockname()[1]
        offer = [socket.gethostname(), port, secrets.token_hex(16)]
    offers = strategy.gather_text(json.dumps(offer))
    name, port, token = json.loads(offers[0])
    token = token.encode()
    own = None
    if not strategy.is_chief:
        own = _called(host or name, port, token, strategy.index)
    answers = strategy.gather_text("" if own is None else "connected")
    if strategy.is_chief:
        with listener:
            peers = _accepted(listener, token, answers.count("connected"))
    else:
        peers = {own: 0} if own and _has_sent(own, token) else {}
    missing = set(range(1, strategy.processes)) - set(peers.values())
    if missing if strategy.is_chief else not peers:
        warnings.warn(
            f"Process {strategy.index} could not be connected with "
            f"{sorted(missing) if strategy.is_chief else 'process 0'} at "
            f"{host or name}, port {port}. If one of them dies, the other "
            "ends only when the framework notices it.",
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


def _called(host, port, token, index):
    try:
        own = socket.create_connection((host, port), timeout=_CONNECT)
        own.sendall(token + _MESSAGE.pack(index))
    except OSError:
        return None
    return own


def _accepted(listener, token, count):
    """Accept connections of processes that know the token."""
    peers = {}
    listener.settimeout(_CONNECT)
    while len(peers) < count:
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            break
        peer.settimeout(_CONNECT)
        if _has_sent(peer, token):
            peers[peer] = _received(peer, None)
            peer.sendall(token)
    return peers


def _has_sent(peer, token):
    """Return True if a peer sends the token; close the connection if not."""
    with contextlib.suppress(OSError):
        if hmac.compare_digest(_read(peer, len(token)), token):
            return True
    peer.close()
    return False


def _read(peer, size):
    found = b""
    while len(found) < size and (more := peer.recv(size - len(found))):
        found += more
    return found
