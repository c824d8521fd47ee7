"""The order of samples: seeds, windows, weights, hosts, stored numbers."""

import collections
import hashlib

import numpy as np
import pytest
import streams
from builders import ONE_BACKEND

from keras_bridgetower.data.stream.epoch_order import EpochOrder
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.epoch_order import Shuffled
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


def test_lanes_have_each_row_once_and_hosts_read_other_shards(tmp_path):
    rows = [streams.record("text_classification", i) for i in range(157)]
    reader = streams.write(tmp_path, rows, "text_classification", num_shards=16)
    order = Shuffled(window=2, lanes=4)
    whole = Stream(reader, 16, order=order)
    every = [i for n in range(whole.steps_per_epoch) for i in whole.ids(n)]
    assert len(set(every)) == len(every) == len(reader)
    seen = []
    for host in range(4):
        one = whole.of_host(4, host)
        ids = [one.ids(number) for number in range(one.steps_per_epoch - 1)]
        seen.append({int(i.split("-")[0][1:]) for part in ids for i in part})
        for number in range(2):
            assert ids[number] == whole.ids(number)[4 * host : 4 * host + 4]
    shard_of = {}
    for i in range(len(reader)):
        item = reader.sample(i)
        shard_of[int(item.key[1:])] = reader.locate(i)[0]
    shards = [{shard_of[record] for record in records} for records in seen]
    # A window may lie on the border of two lanes.
    assert all(len(found) <= 16 // 4 + 2 for found in shards)


def test_each_row_is_read_once_though_hosts_are_lost(tmp_path):
    """A rehearsal of 64 hosts, of which 7 are lost: what each of them reads."""
    size, batches = 64 * 57, 2
    count = batches * size + 100
    rows = [streams.record("text_classification", i, 1) for i in range(count)]
    reader = streams.write(tmp_path, rows, "text_classification", num_shards=64)
    whole = Stream(reader, size, order=Shuffled(window=4), seed=1)
    steps = whole.steps_per_epoch

    def read(hosts, numbers):
        """Return by batch the ids that hosts read, one host after another."""
        every = [whole.of_host(hosts, host) for host in range(hosts)]
        return {n: [i for one in every for i in one.ids(n)] for n in numbers}

    # The hosts are lost in the second batch, which the others begin again.
    found = read(64, [0]) | read(57, range(1, steps))
    seen = collections.Counter(i for ids in found.values() for i in ids)
    assert len(seen) == len(reader)
    assert set(seen.values()) == {1}
    # In the order in which one host would read them.
    assert found == {n: whole.ids(n) for n in range(steps)}
