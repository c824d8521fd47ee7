"""Computes the order of samples in each epoch from seed, epoch and position.

A sample is computed from its position and a few neighboring shards alone, so a
stream can continue anywhere without reading earlier samples.
"""

import dataclasses

import numpy as np

from keras_bridgetower.checks import check_count
from keras_bridgetower.data.records.read import Cached

# Distinct parts of the seeds of different draws.
_SHARDS, _WINDOW, _PART = range(3)


@dataclasses.dataclass(frozen=True)
class Sequential:
    """Samples in the order of the files, for evaluation."""

    window: int = 1
    lanes = 1

    def permutation(self, count, seed):
        """Return the numbers from 0 to `count` - 1 in order, for any seed."""
        return np.arange(count)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Samples in random order, read from few files at a time.

    The shards are permuted. Then the samples of each `window` neighboring
    shards are permuted together. A data set with at most `window` shards is
    permuted as a whole.

    Args:
        window: int, number of shards that are read at a time.
        lanes: int, parts into which the order of an epoch is divided. It must
            divide the batch size: each batch takes as many rows of each part.
            With as many lanes as hosts, or a multiple, each host reads parts
            of its own, and so other shards, but for windows at the ends of
            parts: use many more shards than `window * lanes`. Batches do not
            depend on the number of hosts.
    """

    window: int = 16
    lanes: int = 1

    def __post_init__(self):
        check_count("window", self.window)
        check_count("lanes", self.lanes)

    def permutation(self, count, seed):
        """Return the numbers from 0 to `count` - 1 in the order of the seed."""
        return np.random.default_rng(seed).permutation(count)


class EpochOrder:
    """Computes the samples at positions of an epoch.

    A source of weight w has `round(w * samples)` samples in each epoch, taken
    in passes over the source. A pass has each sample once, and all shards
    advance at the same pace. So a sample is seen once in four epochs if
    w = 0.25, once in each if w = 1, and twice in each if w = 2. Each shard has
    a new order in each pass.

    Args:
        sources: list with one entry per source: the list of the numbers of
            samples in its shards. Samples are numbered across all sources.
        weights: list of numbers above 0, one per source.
        mixing: `Shuffled` or `Sequential`.
        seed: int from 0.

    Call arguments:
        epoch: int from 0.
        positions: int array `(rows,)`, positions in the epoch.

    Returns:
        `(samples, passes)`, int64 arrays `(rows,)`: the numbers of the
        samples and of their passes, that is, how often each was seen before.
        For w = 1 the pass is the epoch.

    Example:

    ```python
    order = EpochOrder([[5, 3]], [1], Shuffled(), seed=0)
    order.rows  # 8
    order(epoch=2, positions=np.arange(8))
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
        # Consecutive batches are of one epoch and mostly one window.
        self._epoch = Cached(self._lay_out, 2)
        self._window = Cached(self._shuffle_window, 2 * mixing.lanes + 2)

    def __call__(self, epoch, positions):
        _, starts, *_ = self._epoch(epoch)
        windows = np.searchsorted(starts, positions, "right") - 1
        found = np.empty((2, len(positions)), "int64")
        for window in np.unique(windows).tolist():
            here = windows == window
            inside = positions[here] - starts[window]
            found[:, here] = self._window(epoch, window)[:, inside]
        return found[0], found[1]

    def shards_ahead(self, epoch, positions):
        """Return the shards at positions of an epoch, and those of the next.

        Args:
            epoch, positions: as in a call.

        Returns:
            int array `(shards,)`: those of the windows of the positions, then
            those of the windows behind in the same lanes, and at the end of a
            lane those of its first window in the next epoch.
        """
        _, starts, *_ = self._epoch(epoch)
        lanes = self.mixing.lanes
        length = max(self.rows // lanes, 1)
        numbers = np.minimum(positions // length, lanes - 1)
        ends = np.where(numbers < lanes - 1, (numbers + 1) * length, self.rows)
        windows = np.searchsorted(starts, positions, "right") - 1
        behind = np.append(starts, self.rows)[windows + 1]
        ahead = behind < ends
        return np.concatenate(
            [
                self._shards_at(epoch, positions),
                self._shards_at(epoch, behind[ahead]),
                self._shards_at(epoch + 1, numbers[~ahead] * length),
            ]
        )

    def _shards_at(self, epoch, positions):
        """Return the shards of the windows of positions, each once."""
        order, starts, *_ = self._epoch(epoch)
        windows = np.unique(np.searchsorted(starts, positions, "right") - 1)
        size = self.mixing.window
        found = [order[w * size : (w + 1) * size] for w in windows]
        return np.concatenate([order[:0], *found])

    def _lay_out(self, epoch):
        """Divide the shards of an epoch into windows.

        Returns:
            The order of the shards, of which each window has so many; the
            start of each window; and the number of samples of each shard
            before this epoch and after it.
        """
        before = self._samples_before(epoch)
        after = self._samples_before(epoch + 1)
        seed = [self.seed, _SHARDS, epoch]
        order = self.mixing.permutation(len(self._sizes), seed)
        cuts = np.arange(0, len(order), self.mixing.window)
        counts = np.add.reduceat((after - before)[order], cuts)
        return order, np.cumsum(counts) - counts, before, after

    def _samples_before(self, epoch):
        """Return the number of samples of each shard before an epoch."""
        used = []
        for sizes, rows in zip(
            self._sources, self._rows_by_source, strict=True
        ):
            passes, rest = divmod(epoch * rows, max(int(sizes.sum()), 1))
            used.append(passes * sizes + _samples_among(sizes, rest))
        return np.concatenate(used)

    def _shuffle_window(self, epoch, window):
        """Return the shuffled samples and passes of a window, `(2, rows)`."""
        order, _, before, after = self._epoch(epoch)
        first = window * self.mixing.window
        entries = [
            self._shard_samples(shard, int(before[shard]), int(after[shard]))
            for shard in order[first : first + self.mixing.window].tolist()
        ]
        entries = np.concatenate(entries, axis=1)
        seed = [self.seed, _WINDOW, epoch, window]
        return entries[:, self.mixing.permutation(entries.shape[1], seed)]

    def _shard_samples(self, shard, start, stop):
        """Return samples and passes of a shard from `start` to `stop`."""
        size = int(self._sizes[shard])
        # The passes of a shard form one long sequence, which epochs divide.
        parts = [np.empty((2, 0), "int64")]
        # A shard is empty if all of its records were left out.
        numbers = range(start // size, -(-stop // size)) if size else ()
        for number in numbers:
            low = max(start - number * size, 0)
            high = min(stop - number * size, size)
            seed = [self.seed, _PART, shard, number]
            inside = self.mixing.permutation(size, seed)[low:high]
            passes = np.full(len(inside), number)
            parts.append(np.stack([inside + self._first[shard], passes]))
        return np.concatenate(parts, axis=1)


def times_fetched(shards, order, hosts):
    """Return how often hosts that fetch whole shards fetch each in an epoch.

    Args:
        shards: int, those of the data set. They count as equally large.
        order: `Shuffled`.
        hosts: int. Each reads its part of every batch.

    Returns:
        float, the mean over the shards: 1 if each is fetched by one host.
    """
    lanes, window, fetched = order.lanes, order.window, 0
    for host in range(hosts):
        first, end = host * lanes // hosts, -(-(host + 1) * lanes // hosts)
        # A window on the border of two parts is fetched for both.
        start = first * shards // (lanes * window) * window
        stop = -(-end * shards // (lanes * window)) * window
        fetched += min(stop, shards) - start
    return fetched / shards


def positions_in_lanes(rows, count, batch_size, lanes):
    """Return the positions in the order of an epoch of rows of batches.

    Lane l of n is the l-th of n equal parts of the order. A batch takes
    `batch_size / lanes` rows of each lane in turn; the last batch takes the
    rest.

    Args:
        rows: int array `(rows,)`, row r of batch b is at
            `b * batch_size + r`.
        count: int, the rows of an epoch.
        batch_size, lanes: int. The second divides the first.

    Returns:
        int array `(rows,)`.
    """
    if lanes == 1:
        return rows
    length, share = count // lanes, batch_size // lanes
    whole = length // share  # Batches.
    batch, row = np.divmod(rows, batch_size)
    lane, inside = np.divmod(row, share)
    found = lane * length + batch * share + inside
    # The last batch has what is left of the lanes, then of the order.
    rest, left = rows - whole * batch_size, length - whole * share
    lane, inside = np.divmod(rest, max(left, 1))
    last = lane * length + whole * share + inside
    last = np.where(rest < lanes * left, last, lanes * (length - left) + rest)
    return np.where(rest < 0, found, last)


def _samples_among(sizes, count):
    """Return the samples of each shard among the first `count` of a pass.

    A pass lasts from 0 to 1. The samples of a shard are spread evenly in it,
    sample i of n at (i + 1/2) / n. Samples at the same point are ordered by
    the number of their shard. So the results add up to `count`, and none
    decreases as `count` grows.
    """
    # The search below would halve a thousand times.
    if not count:
        return np.zeros_like(sizes)

    def until(place):
        return np.minimum(np.floor(sizes * place + 0.5), sizes).astype("int64")

    low, high = 0.0, 1.0
    # At the end `low` and `high` are neighboring floats, and all samples
    # between them are at the same point.
    while low < (middle := (low + high) / 2) < high:
        if until(middle).sum() <= count:
            low = middle
        else:
            high = middle
    counts = until(low)
    more = np.flatnonzero(until(high) > counts)
    counts[more[: count - counts.sum()]] += 1
    return counts
