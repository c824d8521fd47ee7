"""Heads that a preset does not hold: no verb answers by them untrained."""

import numpy as np

from keras_bridgetower import engine

# Numbers of a weight that are looked at; any training changes some of them.
_LOOKED_AT = 1_000


class NewHeads:
    """The heads of a task that are random because its preset lacks them.

    Whatever trains a head or gives it weights (`fit`, a loop of one's own,
    `load_weights`, `assign`) is known by its values.

    Args:
        heads: the task's `HeadSet`.
    """

    def __init__(self, heads):
        self._heads = heads
        self._starts = {}

    def note(self, names):
        """Heads that are random now."""
        self._starts = {name: self._values(name) for name in names}

    def left(self, names):
        """Those of some heads that are as random as they were made."""
        left = []
        for name in names:
            start = self._starts.get(name)
            if start is None:
                continue
            if all(map(np.array_equal, start, self._values(name))):
                left.append(name)
            else:
                self._starts.pop(name, None)
        return left

    def held(self, values):
        """Of a dict by heads what a preset holds: not those still random."""
        left = self.left(values)
        return {name: v for name, v in values.items() if name not in left}

    def check(self, verb, names):
        """Refuse to answer by heads that nobody trained.

        Args:
            verb: str, the method that was called.
            names: iterable of str, the heads that it reads.

        Raises:
            ValueError: one of them is random.
        """
        left = self.left(names)
        if left:
            raise ValueError(
                f"`{verb}` reads the head {', '.join(left)}, which the preset "
                "does not hold: it is new and random. Train it, by `fit`, or "
                "load its weights. To see what a random head says, pass "
                "`random_heads=True` to `from_preset`. Received: a task with "
                f"the untrained head {', '.join(left)}"
            )

    def _values(self, name):
        """Some numbers of every weight of a head."""
        taken = []
        for weight in self._heads[name].weights:
            flat = np.ravel(engine.local_part(weight))
            taken.append(flat[:: max(flat.size // _LOOKED_AT, 1)].copy())
        return taken
