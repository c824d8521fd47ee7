"""Objectives over two replicas of unequal size equal those of one device."""

import pathlib

import forks
import keras
import launch
import numpy as np
import pytest

from keras_bridgetower.objectives import pair_objectives

RUN = pathlib.Path(__file__).with_name("replicas_run.py")
# PyTorch has a process for each replica, TensorFlow one for both.
PROCESSES = {"torch": 2}.get(keras.config.backend(), 1)
pytestmark = pytest.mark.skipif(
    keras.config.backend() == "jax",
    reason="JAX computes on global arrays: nothing to gather",
)


@pytest.fixture
def seen(tmp_path):
    """Return the arrays that each replica saw, by its number and their name."""
    environment = {"MEETING": f"file://{tmp_path}/meeting"}
    files = [tmp_path / f"{rank}.npz" for rank in range(PROCESSES)]
    commands = [[RUN, file, rank] for rank, file in enumerate(files)]
    processes = forks.started(commands, [environment] * PROCESSES)
    launch.codes(processes)
    seen = {"0": {}, "1": {}}
    for file in files:
        for key, value in np.load(file).items():
            rank, name = key.split("/")
            seen[rank][name] = value
    return seen


def hard_negatives(x):
    """Return the rows that all rows of one device draw, images and texts."""
    rows = np.arange(len(x))
    _, places, _ = pair_objectives.make_objective("hard_negatives").draw(
        0, rows
    )
    weights = np.exp(2.0 * x @ x.T) * (rows[:, None] != rows)
    sums = weights.cumsum(1) / weights.sum(1, keepdims=True)
    return [(sums > place[:, None]).argmax(1) for place in places.T]


def test_objectives_on_replicas_of_unequal_size(seen):
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
