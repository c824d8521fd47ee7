"""Computes the order of samples in each epoch from seed, epoch and position.

The sample at a position is computed from a few neighbouring shards alone. So a
stream can continue anywhere at once, without repeating what came before.
"""

import dataclasses
import functools

import numpy as np

from keras_bridgetower.checks import check_count

# A different number in the seed of each kind of draw.
_SHARDS, _WINDOW, _PART = range(3)


@dataclasses.dataclass(frozen=True)
class Sequential:
    """Samples in the order of the files, for evaluation."""

    WRITTEN_AS = "Sequential(window={window})"

    window: int = 1

    def permutation(self, count, seed):
        """The numbers from 0 to `count` - 1 in order, for any seed."""
        return np.arange(count)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Samples in random order, but read from few files at a time.

    The shards are permuted. Then the samples of each `window` neighbouring
    shards are permuted together. A data set with at most `window` shards is
    thus permuted as a whole.

    Args:
        window: int, number of shards that are read at a time.
    """

    WRITTEN_AS = "Shuffled(window={window})"

    window: int = 16

    def __post_init__(self):
        check_count("window", self.window)

    def permutation(self, count, seed):
        """The numbers from 0 to `count` - 1 in a random order, by the seed."""
        return np.random.default_rng(seed).permutation(count)


class EpochOrder:
    """Computes which sample stands at a position of an epoch.

    A source of weight w gives `round(w * samples)` samples in each epoch. The
    samples are taken in passes over the source. In one pass each sample is
    seen once, and all shards advance at the same pace. So a sample is seen
    once in four epochs if w = 0.25, once in each if w = 1, twice in each if
    w = 2. Each shard has a new order for each pass.

    Args:
        sources: list with one entry for each source: the list of the numbers
            of samples in its shards. Samples are numbered across all sources.
        weights: list of numbers above 0, one for each source.
        mixing: `Shuffled` or `Sequential`.
        seed: int from 0.

    Call arguments:
        epoch: int from 0.
        places: int array `(rows,)`, positions in the epoch.

    Returns:
        `(samples, passes)`, int64 arrays `(rows,)`: the numbers of the
        samples, and the number of the pass of each: how often it was seen
        before. For w = 1 that is the epoch.

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
        self._rows_by_source = [
            round(weight * int(sizes.sum()))
            for sizes, weight in zip(self._sources, weights, strict=True)
        ]
        self.rows = sum(self._rows_by_source)
        # Batches that follow each other are of one epoch and mostly one window.
        self._epoch = functools.lru_cache(4)(self._lay_out)
        self._window = functools.lru_cache(4)(self._shuffle_window)

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
            The shards of each window; the position where each window starts;
            and how many samples each shard has given before this epoch and
            after it.
        """
        before, after = (
            self._samples_before(epoch),
            self._samples_before(epoch + 1),
        )
        order = self.mixing.permutation(
            len(self._sizes), [self.seed, _SHARDS, epoch]
        )
        cuts = range(0, len(order), self.mixing.window)
        windows = [order[i : i + self.mixing.window] for i in cuts]
        counts = [(after - before)[shards].sum() for shards in windows]
        return windows, np.cumsum([0, *counts])[:-1], before, after

    def _samples_before(self, epoch):
        """How many samples each shard has given before an epoch."""
        used = []
        for sizes, rows in zip(
            self._sources, self._rows_by_source, strict=True
        ):
            passes, rest = divmod(epoch * rows, max(int(sizes.sum()), 1))
            used.append(passes * sizes + _samples_given(sizes, rest))
        return np.concatenate(used)

    def _shuffle_window(self, epoch, window):
        """The shuffled samples and passes of a window, int64 `(2, rows)`."""
        windows, _, before, after = self._epoch(epoch)
        entries = [
            self._shard_samples(shard, int(before[shard]), int(after[shard]))
            for shard in windows[window].tolist()
        ]
        entries = np.concatenate(entries, axis=1)
        seed = [self.seed, _WINDOW, epoch, window]
        return entries[:, self.mixing.permutation(entries.shape[1], seed)]

    def _shard_samples(self, shard, start, stop):
        """Samples and passes of a shard, from position `start` to `stop`."""
        size = int(self._sizes[shard])
        # The passes of a shard form one long sequence, which epochs divide.
        parts = [np.empty((2, 0), "int64")]
        # A shard may be empty, if all of its records were left out.
        numbers = range(start // size, -(-stop // size)) if size else ()
        for number in numbers:
            low = max(start - number * size, 0)
            high = min(stop - number * size, size)
            seed = [self.seed, _PART, shard, number]
            inside = self.mixing.permutation(size, seed)[low:high]
            passes = np.full(len(inside), number)
            parts.append(np.stack([inside + self._first[shard], passes]))
        return np.concatenate(parts, axis=1)


def _samples_given(sizes, count):
    """How many of the first `count` samples of a pass each shard gives.

    A pass lasts from 0 to 1. The samples of a shard lie evenly in it, sample i
    of n at (i + 1/2) / n. Samples at the same point are ordered by the number
    of their shard. So the results add up to `count`, and none becomes smaller
    if `count` grows.
    """

    def until(place):
        return np.minimum(np.floor(sizes * place + 0.5), sizes).astype("int64")

    low, high = 0.0, 1.0
    # In the end `low` and `high` are neighbouring floats. All samples between
    # them lie at the same point.
    while low < (middle := (low + high) / 2) < high:
        if until(middle).sum() <= count:
            low = middle
        else:
            high = middle
    given = until(low)
    more = np.flatnonzero(until(high) > given)
    given[more[: count - given.sum()]] += 1
    return given
