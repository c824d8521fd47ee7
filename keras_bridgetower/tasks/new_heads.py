"""Marks heads that a preset lacks, so that no verb uses them untrained."""

import hashlib
import operator

import numpy as np

from keras_bridgetower.backend import backend_ops

# Numbers of a weight that are looked at; any training changes some of them.
_LOOKED_AT = 1_000
_DIGITS = 16
# In configurations, where there are such heads alone.
NEW_HEADS = "new_heads"


class NewHeads:
    """The heads of a task that are random because its preset lacks them.

    A head counts as trained when its values have changed, whichever way
    (`fit`, a loop of one's own, `load_weights`, `assign`).

    Args:
        heads: the task's `HeadSet`.
    """

    def __init__(self, heads):
        self._heads = heads
        self._starts = {}

    def note(self, names):
        """Heads that are random now."""
        self._starts = {name: self._digests(name) for name in names}

    def saved(self):
        """What a configuration keeps of them, or `{}`."""
        return {
            name: self._starts[name] for name in self.still_random(self._heads)
        }

    def restore(self, saved):
        """Take over what `saved` returned, before weights are loaded."""
        self._starts = {n: v for n, v in saved.items() if n in self._heads}

    def still_random(self, names):
        """Those of some heads that are as random as they were made."""
        left = []
        for name in names:
            start = self._starts.get(name)
            # Of more weights where adapters came in, which change nothing yet.
            if start and all(map(operator.eq, start, self._digests(name))):
                left.append(name)
        return left

    def without_random(self, values):
        """Of a dict by heads what a preset holds: not those still random."""
        left = self.still_random(values)
        return {name: v for name, v in values.items() if name not in left}

    def check(self, verb, names):
        """Refuse to answer by heads that nobody trained.

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
                f"`{verb}` reads the head {', '.join(left)}, which the preset "
                "does not hold: it is new and random. Train it, by `fit`, or "
                "load its weights. To see what a random head says, pass "
                "`random_heads=True` to `from_preset`. Received: a task with "
                f"the untrained head {', '.join(left)}"
            )

    def _digests(self, name):
        """A digest of some numbers of every weight of a head."""
        made = []
        for weight in self._heads[name].weights:
            flat = np.ravel(backend_ops.local_part(weight))
            some = flat[:: max(flat.size // _LOOKED_AT, 1)]
            made.append(hashlib.sha256(some.tobytes()).hexdigest()[:_DIGITS])
        return made
