"""Batches are divided so that no row is lost and no replica left out."""

import keras
import numpy as np
import pytest

from keras_bridgetower.distribution import divide_batches

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="no backend is used"
)


def dataset(number, batch, **kwargs):
    import tensorflow as tf

    x = np.arange(number)
    data = tf.data.Dataset.from_tensor_slices(({"x": x}, x))
    return data.batch(batch, **kwargs)


def numbers(data):
    return [list(x["x"].numpy()) for x, _ in data]


@pytest.mark.parametrize(
    "number,batch,count", [(9, 8, 8), (20, 5, 4), (16, 8, 4)]
)
def test_every_replica_gets_rows(number, batch, count):
    data = divide_batches.without_short_end(dataset(number, batch), count)
    batches = numbers(data)
    assert sum(batches, []) == list(range(number))
    assert min(map(len, batches)) >= count
    assert int(data.cardinality()) == len(batches)
    # In turn, like the replicas of one process.
    for own in (1, count):
        parts = [
            numbers(divide_batches.pieces_in_turn(data, first, own, count))
            for first in range(0, count, own)
        ]
        lengths = [len(p) for part in parts for p in part]
        assert min(lengths) >= 1
        assert sorted(sum(sum(parts, []), [])) == list(range(number))


def numbered(number, batch, **kwargs):
    """Return batches with their number, a scalar, as the first entry."""

    def add(step, batch):
        return {"step": step, "text": batch[0]["x"]}, batch[1]

    return dataset(number, batch, **kwargs).enumerate().map(add)


def test_scalars_go_to_every_replica():
    data = divide_batches.without_short_end(numbered(17, 8), 8)
    parts = divide_batches.pieces_in_turn(data, 0, 8, 8)
    found = [(int(x["step"]), list(x["text"].numpy())) for x, _ in parts]
    assert sorted(sum([rows for _, rows in found], [])) == [*range(17)]
    steps = [step for step, _ in found]
    assert steps == sorted(steps) and set(steps) <= set(range(3))
    data = divide_batches.only_divisible(numbered(8, 4), 4)
    assert [int(x["step"]) for x, _ in data] == [0, 1]


def test_static_shapes_stay():
    data = numbered(8, 4, drop_remainder=True)
    assert divide_batches.static_rows(data) == 4
    divide_batches.check_size(data, 2)
    pieces = divide_batches.pieces_in_turn(data, 1, 1, 2)
    x, y = pieces.element_spec
    assert x["text"].shape == y.shape == (2,) and x["step"].shape == ()
    assert int(pieces.cardinality()) == 2


def test_weights_without_labels():
    data = dataset(7, 3).map(lambda x, y: (x, None, 2 * y))
    whole = divide_batches.without_short_end(data, 2)
    found = [*divide_batches.pieces_in_turn(whole, 0, 2, 2)]
    assert all(y is None for _, y, _ in found)
    assert sum([list(x["x"].numpy()) for x, *_ in found], []) == [*range(7)]
    for x, _, weight in found:
        np.testing.assert_array_equal(weight, 2 * x["x"])
    even = divide_batches.only_divisible(data.take(2), 3)
    assert [list(w.numpy()) for *_, w in even] == [[0, 2, 4], [6, 8, 10]]


def test_batches_that_do_not_fit():
    six = dataset(6, 6, drop_remainder=True)
    for check, data, count, message in (
        (divide_batches.check_size, dataset(8, 4), 2, "drop_remainder=True"),
        (divide_batches.check_size, six, 4, "of 6 rows"),
        (divide_batches.without_short_end, dataset(3, 8), 4, "of 3 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            check(data, count)


def test_processes_stop_at_the_same_batch():
    import tensorflow as tf

    data = divide_batches.only_divisible(dataset(6, 4), 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="that 4 devices"):
        numbers(data)
