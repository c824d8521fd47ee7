"""Losses over two replicas equal those of one device on the whole batch."""

import pathlib

import forks
import keras
import launch
import numpy as np
import pytest

from keras_bridgetower.objectives import pair_objectives

HERE = pathlib.Path(__file__).parent
# Torch has a process for each replica, the others one for both.
PROCESSES = {"torch": 2, "tensorflow": 1, "jax": 1}[keras.config.backend()]
gathers = pytest.mark.skipif(
    keras.config.backend() == "jax",
    reason="JAX computes on global arrays: nothing to gather",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return the arrays that each process saved, by way and name."""
    folder = tmp_path_factory.mktemp("replicas")
    environment = {"MEETING": f"file://{folder}/meeting"}
    files = [folder / f"{rank}.npz" for rank in range(PROCESSES)]
    commands = [
        [HERE / "replicas_run.py", file, rank]
        for rank, file in enumerate(files)
    ]
    launch.codes(
        forks.started(commands, [environment] * PROCESSES), timeout=120
    )
    return [by_way(np.load(file)) for file in files]


def by_way(saved):
    ways = {}
    for key, value in saved.items():
        way, name = key.split("/", 1)
        ways.setdefault(way, {})[name] = value
    return ways


def weights_differ(a, b):
    names = {name for name in a if name != "loss"}
    assert len(names) == 7 and names | {"loss"} == set(b)
    return max(np.abs(a[name] - b[name]).max() for name in names)


def mean_loss(found, way):
    return np.mean([process[way]["loss"] for process in found])


def test_training_equals_one_device(found):
    for process in found:
        assert weights_differ(process["one"], process["two"]) <= 1e-6
    one, two = (mean_loss(found, way) for way in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-5)


@gathers
def test_missing_gathering_changes_weights(found):
    for process in found:
        assert weights_differ(process["one"], process["local"]) > 1e-3
    one, local = (mean_loss(found, way) for way in ("one", "local"))
    assert abs(local - one) > 1e-2


def hard_negatives(x):
    """Return the rows that all rows of one device draw, images and texts."""
    rows = np.arange(len(x))
    _, places, _ = pair_objectives.make_objective("hard_negatives").draw(
        0, rows
    )
    weights = np.exp(2.0 * x @ x.T) * (rows[:, None] != rows)
    sums = weights.cumsum(1) / weights.sum(1, keepdims=True)
    return [(sums > place[:, None]).argmax(1) for place in places.T]


@gathers
def test_objectives_on_replicas_of_unequal_size(found):
    seen = {k: v for process in found for k, v in process.items()}
    x, factors = seen["0"]["x"], seen["0"]["factors"]
    for rank, own in (("0", slice(0, 3)), ("1", slice(3, 5))):
        np.testing.assert_array_equal(seen[rank]["rows"], x)
        assert seen[rank]["offset"] == own.start
        np.testing.assert_allclose(
            seen[rank]["gradient"], factors.sum(0)[own], rtol=1e-6
        )
        assert seen[rank]["sum"] == 1 + 2
        # Pairs reach over the edge of a replica, as on one device.
        following = np.roll(x, -1, axis=0)[own]
        np.testing.assert_array_equal(seen[rank]["next"], following)
        false, _ = pair_objectives.make_objective("ranking").draw(
            0, np.arange(5)
        )
        rows = np.arange(5)[:, None]
        # A row's gradient counts how often any replica took it.
        counts = np.bincount((rows + false).ravel(), minlength=5)[own]
        np.testing.assert_array_equal(seen[rank]["taken"].T, [counts] * 2)
        texts = np.concatenate([rows, rows + false], axis=1)
        scores = (x[texts] * x[:, None]).sum(-1)[own]
        np.testing.assert_allclose(seen[rank]["ranked"], scores, rtol=1e-5)
        pairs = seen[rank]["hard"]
        np.testing.assert_array_equal(pairs[:, :2, :2], x[own, None][:, [0, 0]])
        np.testing.assert_array_equal(
            pairs[:, ::2, 2:], x[own, None][:, [0, 0]]
        )
        images, texts = hard_negatives(x)
        np.testing.assert_array_equal(pairs[:, 1, 2:], x[images][own])
        np.testing.assert_array_equal(pairs[:, 2, :2], x[texts][own])
    logits, labels = seen["0"]["logits"].astype("float64"), seen["0"]["labels"]
    right = np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)
    losses = np.log(np.exp(logits).sum(-1)) - right[..., 0]
    # The mean of the replicas' means, each weighed by its rows.
    mean = np.concatenate([seen["0"]["mlm"], seen["1"]["mlm"]]).mean()
    assert mean == pytest.approx(losses[labels >= 0].mean(), rel=1e-5)
