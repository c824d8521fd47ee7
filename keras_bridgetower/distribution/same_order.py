"""Checks that all processes read the rows of a dataset in the same order.

Each process reads every batch and keeps its part. If the orders differ, as
after a shuffle without a seed, rows are lost and others are read twice.
"""

import hashlib
import itertools
import json
import math

import numpy as np

# Number of batches that are compared before a dataset is used.
FIRST = 4
# Number of batches whose sums are kept, more than a process reads ahead.
KEPT = 1000
# If some arrays are random, others must prove the order of the rows with this
# many bits: the probability of a chance agreement is below 2 ** -CERTAIN.
CERTAIN = 10


class SameOrder:
    """Compares what the processes of a strategy read.

    Args:
        strategy: a `Strategy` of several processes.
    """

    def __init__(self, strategy):
        self._strategy = strategy
        self._passes = {}
        self._numbers = itertools.count()

    def recorded(self, dataset):
        """Return the dataset, which records its rows for `check`.

        The first batches are read and compared at once.

        Args:
            dataset: `tf.data.Dataset` of global batches.

        Raises:
            ValueError: the orders differ; raised in every process.
        """
        import tensorflow as tf

        number, passes = next(self._numbers), itertools.count()
        facts = f"{int(dataset.cardinality())} {dataset.element_spec}"

        def add(place, count, *parts):
            if count == 0:
                place = np.int64(next(passes))
                self._passes[f"{number} {place}"] = _Pass(facts)
            found = self._passes.get(f"{number} {place}")
            if found is not None:
                found.add(parts)
            return place

        def record(place, element):
            count, batch = element
            parts = tf.nest.flatten(batch, expand_composites=True)
            parts = [_fingerprints(part) for part in parts if part is not None]
            place = tf.numpy_function(add, [place, count, *parts], tf.int64)
            place.set_shape(())
            return place, batch

        recorded = dataset.enumerate().scan(np.int64(0), record)
        self._strategy.together(lambda: [None for _ in recorded.take(FIRST)])
        self.check()
        return recorded

    def check(self):
        """Raise if the processes have read in different orders.

        Every process must call it.

        Raises:
            ValueError: the orders differ; raised in every process.
        """
        passes = dict(self._passes)  # A copy, because other threads add to it.
        if not passes:
            return
        counts = self._gathered({name: p.count for name, p in passes.items()})
        common = {
            name: min(one[name] for one in counts)
            for name in passes
            if all(name in one for one in counts)
        }
        found = self._gathered(
            {name: passes[name].sums.get(n) for name, n in common.items()}
        )
        errors = {
            name: _error([one[name] for one in found], count)
            for name, count in common.items()
        }
        # Go on with the newest pass over each dataset, unless it failed.
        newest = {name.split()[0]: name for name in passes}.values()
        for name in passes:
            if name not in newest or errors.get(name):
                del self._passes[name]
        for error in filter(None, errors.values()):
            raise ValueError(error)

    def _gathered(self, facts):
        texts = self._strategy.gather_text(json.dumps(facts))
        return [json.loads(text) for text in texts]


class _Pass:
    """Sums of the rows that were read in one pass over a dataset.

    Args:
        facts: str that must be the same in all processes.

    Attributes:
        count: int, number of batches that were read.
        sums: dict from a number of first batches to a digest and `_bits` for
            each array.
    """

    def __init__(self, facts):
        self.count, self.sums, self._facts = 0, {}, facts

    def add(self, parts):
        """Add the fingerprints of the rows of each array of a batch."""
        before = self.sums.get(self.count, [[self._facts, 0.0]] * len(parts))
        count = self.count + 1
        self.sums[count] = [
            [_digest(text, part), bits + _bits(part)]
            for (text, bits), part in zip(before, parts, strict=True)
        ]
        self.sums.pop(count - KEPT, None)
        # Last, because another thread may read the sums of this count.
        self.count = count


def _error(found, count):
    """Return an error if sums of processes over `count` batches differ."""
    if None in found:
        return None
    arrays = list(zip(*found, strict=False))
    equal = [a for a in arrays if len({digest for digest, _ in a}) == 1]
    # Random values may differ, such as augmented pictures.
    ordered = any(bits >= CERTAIN for ((_, bits), *_) in equal)
    if ordered or len(equal) == len(arrays):
        return None
    return (
        "All processes must read the rows of a dataset in the same order, as "
        "by `dataset.shuffle(1000, seed=7)`. "
        f"Received: {count} batches that differ between the processes in "
        f"{len(arrays) - len(equal)} of {len(arrays)} arrays"
    )


def _fingerprints(array):
    """Return 8 bytes for each row of a tensor, `(rows, 8)`."""
    import tensorflow as tf

    if not array.shape.rank:  # A scalar, or of unknown rank.
        array = tf.reshape(array, (1, -1))
    return tf.fingerprint(array)


def _digest(text, part):
    return hashlib.sha256(text.encode() + part.tobytes()).hexdigest()[:16]


def _bits(part):
    """Return the binary logarithm of the number of orders of rows."""
    _, counts = np.unique(part, axis=0, return_counts=True)
    orders = math.lgamma(len(part) + 1)
    orders -= sum(math.lgamma(count + 1) for count in counts)
    return orders / math.log(2)
