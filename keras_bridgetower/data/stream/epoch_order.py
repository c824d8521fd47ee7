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

    WRITTEN_AS = "Sequential(window={window})"

    window: int = 1

    def permutation(self, count, seed):
        """The numbers from 0 to `count` - 1 in order, whatever the seed."""
        return np.arange(count)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Samples mixed, but read from few files at a time.

    The shards are permuted, and the samples of `window` neighbours mixed; a
    set of no more shards than that is permuted as a whole.

    Args:
        window: int, shards that are read at a time.
    """

    WRITTEN_AS = "Shuffled(window={window})"

    window: int = 16

    def __post_init__(self):
        if type(self.window) is not int or self.window < 1:
            raise ValueError(
                "`window` must be an integer from 1, a number of shards. "
                f"Received: window={self.window!r}"
            )

    def permutation(self, count, seed):
        """The numbers from 0 to `count` - 1 in an order drawn by the seed."""
        return np.random.default_rng(seed).permutation(count)


class EpochOrder:
    """What stands at each place of each epoch.

    A source of weight w gives `round(w * samples)` samples an epoch. It is
    used up pass by pass, all shards at one pace, and in a pass each sample is
    seen once: with w = 0.25 once in four epochs, with w = 2 twice in one, with
    w = 1 once. Each shard has an order of its own for each pass.

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
        self._sources = [np.asarray(sizes, "int64") for sizes in sources]
        self._sizes = np.concatenate(self._sources)
        self._first = np.cumsum(self._sizes) - self._sizes
        self._rows = [
            round(weight * int(sizes.sum()))
            for sizes, weight in zip(self._sources, weights, strict=True)
        ]
        self.rows = sum(self._rows)
        # Neighbours in time share an epoch and mostly a window.
        self._epoch = functools.lru_cache(4)(self._lay_out)
        self._window = functools.lru_cache(4)(self._mix)

    def __call__(self, epoch, places):
        _, starts, *_ = self._epoch(epoch)
        windows = np.searchsorted(starts, places, "right") - 1
        found = np.empty((2, len(places)), "int64")
        for window in np.unique(windows).tolist():
            here = windows == window
            inside = places[here] - starts[window]
            found[:, here] = self._window(epoch, window)[:, inside]
        return found[0], found[1]

    def _lay_out(self, epoch):
        """Divide the shards of an epoch into windows.

        Returns:
            The shards of each window, the place where each starts, and how
            many samples each shard has given before this epoch and after it.
        """
        before, after = self._used(epoch), self._used(epoch + 1)
        order = self.mixing.permutation(
            len(self._sizes), [self.seed, _SHARDS, epoch]
        )
        cuts = range(0, len(order), self.mixing.window)
        windows = [order[i : i + self.mixing.window] for i in cuts]
        counts = [(after - before)[shards].sum() for shards in windows]
        return windows, np.cumsum([0, *counts])[:-1], before, after

    def _used(self, epoch):
        """How many samples each shard has given before an epoch."""
        used = []
        for sizes, rows in zip(self._sources, self._rows, strict=True):
            passes, rest = divmod(epoch * rows, max(int(sizes.sum()), 1))
            used.append(passes * sizes + _given(sizes, rest))
        return np.concatenate(used)

    def _mix(self, epoch, window):
        """Samples and passes of a window, int64 `(2, rows)`."""
        windows, _, before, after = self._epoch(epoch)
        entries = [
            self._part(shard, int(before[shard]), int(after[shard]))
            for shard in windows[window].tolist()
        ]
        entries = np.concatenate(entries, axis=1)
        seed = [self.seed, _WINDOW, epoch, window]
        return entries[:, self.mixing.permutation(entries.shape[1], seed)]

    def _part(self, shard, start, stop):
        """Samples and passes that a shard gives, from one place to another."""
        size = int(self._sizes[shard])
        # The shard's passes stand one after the other; epochs cut the row.
        parts = [np.empty((2, 0), "int64")]
        # A shard all of whose records were left out has none to give.
        numbers = range(start // size, -(-stop // size)) if size else ()
        for number in numbers:
            low = max(start - number * size, 0)
            high = min(stop - number * size, size)
            seed = [self.seed, _PART, shard, number]
            inside = self.mixing.permutation(size, seed)[low:high]
            passes = np.full(len(inside), number)
            parts.append(np.stack([inside + self._first[shard], passes]))
        return np.concatenate(parts, axis=1)


def _given(sizes, count):
    """How many samples each shard gives to the first `count` of a pass.

    A shard's samples lie evenly over the pass, sample i of n at (i + 1/2) / n,
    and those at one place follow each other by the number of their shard. So
    counts never fall as `count` grows, and add up to it.
    """

    def until(place):
        return np.minimum(np.floor(sizes * place + 0.5), sizes).astype("int64")

    low, high = 0.0, 1.0
    # Two floats with none between: what lies at the latter lies at one place.
    while low < (middle := (low + high) / 2) < high:
        if until(middle).sum() <= count:
            low = middle
        else:
            high = middle
    given = until(low)
    more = np.flatnonzero(until(high) > given)
    given[more[: count - given.sum()]] += 1
    return given
