"""A rehearsal of 64 hosts, of which 7 are lost: what each of them reads."""

import collections

import streams
from builders import FASTEST

from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.stream import Stream

pytestmark = FASTEST
BATCH, BATCHES = 64 * 57, 2


def test_each_row_is_read_once_though_hosts_are_lost(tmp_path):
    count = BATCHES * BATCH + 100
    rows = [streams.record("text_classification", i, 1) for i in range(count)]
    reader = streams.write(tmp_path, rows, "text_classification", num_shards=64)
    whole = Stream(reader, BATCH, order=Shuffled(window=4), seed=1)
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
