"""The order of samples: seeds, windows, weights, hosts, stored numbers."""

import hashlib

import numpy as np
import pytest
import streams
from builders import ONE_BACKEND

from keras_bridgetower.data.stream.epoch_order import EpochOrder
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.epoch_order import positions_in_lanes
from keras_bridgetower.data.stream.epoch_order import times_fetched
from keras_bridgetower.data.stream.stream import Stream

pytestmark = ONE_BACKEND
SIZES = [[7, 5, 9, 4, 6, 8, 3], [10, 2]]


def order(weights=(1, 1), mixing=None, seed=3, sizes=SIZES):
    return EpochOrder(sizes, weights, mixing or Shuffled(2), seed)


def epoch(built, number):
    return built(number, np.arange(built.rows))


def test_each_epoch_has_each_sample_once():
    built = order()
    assert built.rows == 54
    seen = [epoch(built, e) for e in range(4)]
    for e, (samples, passes) in enumerate(seen):
        assert sorted(samples) == list(range(54))
        assert (passes == e).all()
    assert len({tuple(samples) for samples, _ in seen}) == 4
    # Any places of it, without those before.
    places = np.random.default_rng(0).integers(0, 54, 6)
    wanted = [of[places] for of in seen[2]]
    np.testing.assert_array_equal(order()(2, places), wanted)
    assert (epoch(order(seed=4), 2)[0] != seen[2][0]).any()


@pytest.mark.parametrize(
    "weights, wanted",
    [((1, 2), "269f2fb555fc2634"), ((1.5, 0.5), "1941dfbafedc9ce6")],
)
def test_stored_order(weights, wanted):
    built = order(weights=weights)
    text = b"".join(epoch(built, e)[0].tobytes() for e in range(3))
    assert hashlib.sha256(text).hexdigest()[:16] == wanted


@pytest.mark.parametrize("mixing", [Shuffled(2), Sequential()])
def test_weights_repeat_and_subsample_evenly(mixing):
    built = order(weights=(2, 0.25), mixing=mixing)
    first, second = np.zeros(42, int), np.zeros(12, int)
    assert built.rows == 84 + 3
    for e in range(4):
        samples, passes = epoch(built, e)
        counts = np.bincount(samples, minlength=54)
        assert (counts[:42] == 2).all() and counts[42:].sum() == 3
        # A repeated sample belongs to another pass, and so has other draws.
        pairs = set(zip(samples.tolist(), passes.tolist(), strict=True))
        assert len(pairs) == len(samples)
        first += counts[:42]
        second += counts[42:]
    assert (first == 8).all() and second.sum() == 12
    # After four epochs each sample was seen at most once more than others of
    # its shard.
    for shard in (second[:10], second[10:]):
        assert shard.max() - shard.min() <= 1


@pytest.mark.parametrize(
    "sizes, weight, epochs",
    [
        ([3] * 40, 0.1, 20),
        ([1] * 40 + [60], 0.05, 20),
        ([3, 0, 5, 1], 0.4, 9),
        # Not a whole number of rows: 10 / 3 and 17 / 10 of a pass.
        ([6, 6, 6], 1 / 3, 30),
        ([10], 1.7, 30),
    ],
)
def test_weights_of_small_shards(sizes, weight, epochs):
    built = order((weight,), Shuffled(16), sizes=[sizes])
    assert built.rows == round(weight * sum(sizes))
    seen, passes = np.zeros(sum(sizes), int), []
    for e in range(epochs):
        samples, numbers = epoch(built, e)
        seen += np.bincount(samples, minlength=len(seen))
        passes += zip(samples.tolist(), numbers.tolist(), strict=True)
        # No sample is repeated before all others were seen.
        assert seen.max() - seen.min() <= 1
    assert (seen == built.rows * epochs // sum(sizes)).all()
    assert len(set(passes)) == len(passes)


def test_hosts_read_their_rows_of_the_same_batches(tmp_path):
    """However many they are; of as many lanes, each reads other shards."""
    rows = [streams.record("text_classification", i) for i in range(157)]
    reader = streams.write(tmp_path, rows, "text_classification", num_shards=16)
    whole = Stream(reader, 16, order=Shuffled(window=2, lanes=4))
    batches = [whole.ids(number) for number in range(whole.steps_per_epoch)]
    every = [i for batch in batches for i in batch]
    assert len(set(every)) == len(every) == len(reader)
    for count in (2, 4):
        hosts = [whole.of_host(count, host) for host in range(count)]
        for number, batch in enumerate(batches):
            assert [i for one in hosts for i in one.ids(number)] == batch
    shard_of = {
        reader.sample(i).sample.id: reader.locate(i)[0]
        for i in range(len(reader))
    }
    for host in hosts:
        ids = (host.ids(number) for number in range(len(batches) - 1))
        shards = {shard_of[i] for part in ids for i in part}
        # A window may lie on the border of two lanes.
        assert len(shards) <= 16 // 4 + 2


@pytest.mark.parametrize(
    "shards, window, lanes, hosts",
    [(96, 16, 1, 8), (96, 5, 4, 8), (30, 16, 6, 3)],
)
def test_shards_that_hosts_fetch_are_counted(shards, window, lanes, hosts):
    """Count those of the samples of each host in an epoch of whole batches."""
    mixing = Shuffled(window, lanes)
    built = order((1,), mixing, sizes=[[240] * shards])
    rows, found = np.arange(built.rows).reshape(-1, hosts, 48 // hosts), 0
    for host in range(hosts):
        places = positions_in_lanes(
            rows[:, host].ravel(), built.rows, 48, lanes
        )
        found += len(np.unique(built(0, places)[0] // 240))
    assert found / shards == times_fetched(shards, mixing, hosts)
