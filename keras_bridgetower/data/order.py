"""In which order samples are seen, as a function of seed, epoch and place.

Nothing is replayed: what stands at a place of an epoch is worked out from the
window of shards around it, so a stream goes on anywhere at once.
"""

import dataclasses
import functools

import numpy as np

# First number of each kind of seed, so that no two draws share one.
_SHARDS, _WINDOW, _PART = range(3)


@dataclasses.dataclass(frozen=True)
class Sequential:
    """Samples as they lie in the files, for evaluation."""

    window: int = 1

    def permutation(self, count, seed):
        return np.arange(count)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Samples mixed, but read from few files at a time.

    The shards are permuted, and the samples of `window` neighbours mixed; a
    set of no more shards than that is permuted as a whole.

    Args:
        window: int, shards that are read at a time.
    """

    window: int = 16

    def __post_init__(self):
        if type(self.window) is not int or self.window < 1:
            raise ValueError(
                "`window` must be an integer from 1, a number of shards. "
                f"Received: window={self.window!r}"
            )

    def permutation(self, count, seed):
        return np.random.default_rng(seed).permutation(count)


class EpochOrder:
    """What stands at each place of each epoch.

    A source of weight w gives `round(w * samples)` samples an epoch, of each
    shard its share. A shard's samples are used up pass by pass, each in an
    order of its own: with w = 0.25 each sample is seen once in four epochs,
    with w = 2 twice in one, with w = 1 once.

    Args:
        sources: list, of each source the list of the numbers of samples in
            its shards. All samples are numbered through.
        weights: list of numbers above 0, one for each source.
        mixing: `Shuffled` or `Sequential`.
        seed: int from 0.

    Call arguments:
        epoch: int from 0.
        places: int array `(rows,)` of places in the epoch.

    Returns:
        `(samples, passes)`, int64 arrays `(rows,)`: the numbers of the
        samples, and how often each was seen before, which for w = 1 is the
        epoch.

    Example:

    ```python
    order = EpochOrder([[5, 3]], [1], Shuffled(), seed=0)
    order.rows  # 8
    order(epoch=2, places=np.arange(8))
    ```
    """

    def __init__(self, sources, weights, mixing, seed):
        self.mixing = mixing
        self.seed = seed
        self._sizes = np.concatenate([np.asarray(s, "int64") for s in sources])
        self._first = np.cumsum(self._sizes) - self._sizes
        shares = zip(sources, weights, strict=True)
        self._taken = np.concatenate([_taken(s, w) for s, w in shares])
        self.rows = int(self._taken.sum())
        # Neighbours in time share an epoch and mostly a window.
        self._epoch = functools.lru_cache(4)(self._lay_out)
        self._window = functools.lru_cache(4)(self._mix)

    def __call__(self, epoch, places):
        _, starts = self._epoch(epoch)
        windows = np.searchsorted(starts, places, "right") - 1
        found = np.empty((2, len(places)), "int64")
        for window in np.unique(windows).tolist():
            here = windows == window
            inside = places[here] - starts[window]
            found[:, here] = self._window(epoch, window)[:, inside]
        return found[0], found[1]

    def _lay_out(self, epoch):
        """The shards of each window, and the place where each starts."""
        order = self.mixing.permutation(
            len(self._sizes), [self.seed, _SHARDS, epoch]
        )
        cuts = range(0, len(order), self.mixing.window)
        windows = [order[i : i + self.mixing.window] for i in cuts]
        counts = [self._taken[shards].sum() for shards in windows]
        return windows, np.cumsum([0, *counts])[:-1]

    def _mix(self, epoch, window):
        """Samples and passes of a window, int64 `(2, rows)`."""
        shards = self._epoch(epoch)[0][window]
        entries = [self._part(epoch, shard) for shard in shards.tolist()]
        entries = np.concatenate(entries, axis=1)
        seed = [self.seed, _WINDOW, epoch, window]
        return entries[:, self.mixing.permutation(entries.shape[1], seed)]

    def _part(self, epoch, shard):
        """Samples and passes that a shard gives to an epoch."""
        size, taken = int(self._sizes[shard]), int(self._taken[shard])
        # The shard's passes stand one after the other; epochs cut the row.
        start, stop = epoch * taken, (epoch + 1) * taken
        parts = [np.empty((2, 0), "int64")]
        for number in range(start // size, -(-stop // size)):
            low = max(start - number * size, 0)
            high = min(stop - number * size, size)
            seed = [self.seed, _PART, shard, number]
            inside = self.mixing.permutation(size, seed)[low:high]
            passes = np.full(len(inside), number)
            parts.append(np.stack([inside + self._first[shard], passes]))
        return np.concatenate(parts, axis=1)


def _taken(sizes, weight):
    """How many samples each shard of a source gives to an epoch."""
    ends = np.rint(weight * np.cumsum(sizes)).astype("int64")
    return np.diff(ends, prepend=0)
