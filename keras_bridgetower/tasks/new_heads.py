"""Heads of a task that are new, because its preset lacks them."""

import hashlib

import numpy as np

from keras_bridgetower.backend import backend_ops

# Numbers of a weight that are looked at; any training changes some of them.
_LOOKED_AT = 1_000
_DIGITS = 16
# Key in the configuration of a task with such heads.
NEW_HEADS = "new_heads"


class NewHeadWarning(UserWarning):
    """A preset lacks a head of the task, which is newly initialized."""


class NewHeads:
    """The heads of a task that are new, because its preset lacks them.

    A head counts as trained when its values have changed, whichever way
    (`fit`, a loop of one's own, `load_weights`, `assign`).

    Args:
        heads: the task's `HeadSet`.
    """

    def __init__(self, heads):
        self._heads = heads
        self._starts = {}

    def note(self, names):
        """Mark heads as newly initialized."""
        self._starts = {name: self._digests(name) for name in names}

    def saved(self):
        """Return the heads' state for a configuration, or `{}`."""
        return {
            name: self._starts[name] for name in self.still_random(self._heads)
        }

    def restore(self, saved):
        """Restore the result of `saved`, before weights are loaded."""
        self._starts = {n: v for n, v in saved.items() if n in self._heads}

    def still_random(self, names):
        """Return those of some heads whose values have not changed."""
        left = []
        for name in names:
            start = self._starts.get(name)
            # Adapters add weights, which change no output yet.
            if start and start == self._digests(name)[: len(start)]:
                left.append(name)
        return left

    def check(self, verb, names):
        """Raise an error if an untrained head is read.

        Args:
            verb: str, the method that was called.
            names: iterable of str, the heads that it reads.

        Raises:
            ValueError: one of them is random.
        """
        left = self.still_random(names)
        for name in set(names) - set(left):
            # A trained head need not be looked at again.
            self._starts.pop(name, None)
        if left:
            raise ValueError(
                f"`{verb}` reads the head {', '.join(left)}, which is newly "
                "initialized. Train it by `fit`, or pass `random_heads=True`"
            )

    def _digests(self, name):
        """Return a digest of some numbers of every weight of a head."""
        made = []
        for weight in self._heads[name].weights:
            flat = np.ravel(backend_ops.local_part(weight))
            some = flat[:: max(flat.size // _LOOKED_AT, 1)]
            made.append(hashlib.sha256(some.tobytes()).hexdigest()[:_DIGITS])
        return made
