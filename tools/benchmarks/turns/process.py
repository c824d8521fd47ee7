"""The process of a contender: it loads once and takes turns."""

import importlib
import time

from turns.devices import device_of

# The functions of this process: to prepare a turn, and by sizes the turns.
_PREPARE, _TURNS = [], {}


def load(work, saved, contender):
    """Load the model; return `loading` seconds and the `device`."""
    started = time.perf_counter()
    module, _, name = work.function.partition(".")
    function = getattr(importlib.import_module(f"turns.{module}"), name)
    _PREPARE[:] = [function(saved, contender, **contender.settings)]
    return {
        "loading": time.perf_counter() - started,
        "device": device_of(contender),
    }


def take(batch, tokens):
    """Take a turn; return its measurements, of the first one the `outputs`."""
    first = (batch, tokens) not in _TURNS
    if first:
        _TURNS[batch, tokens] = _PREPARE[0](batch, tokens)
    turn = _TURNS[batch, tokens]
    started = time.perf_counter()
    outputs = turn()
    seconds = time.perf_counter() - started
    if first:
        turn()
        return {"first": seconds, "outputs": outputs.tolist()}
    return {"seconds": seconds, **getattr(turn, "measured", dict)()}
