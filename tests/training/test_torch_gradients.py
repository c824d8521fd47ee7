"""Processes of PyTorch average gradients as one process does with all rows."""

import pathlib

import forks
import gradients_run
import launch
import numpy as np
import pytest
from launch import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch's way")
RUN = pathlib.Path(__file__).with_name("gradients_run.py")
WEIGHTS = 4 * 6 + 6 + 6 + 1


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)]
)
def found(request, tmp_path_factory):
    folder, count = tmp_path_factory.mktemp("gradients"), request.param
    environments = launch.several_processes(count)
    launch.codes(forks.started([[RUN, folder]] * count, environments))
    return [dict(np.load(folder / f"{i}.npz")) for i in range(count)]


@pytest.mark.parametrize("optimizer", gradients_run.OPTIMIZERS)
def test_weights_are_those_of_one_process(found, optimizer):
    """Compare clipping, averages, loss scaling and a batch that is skipped."""
    one = gradients_run.trained(optimizer)
    for name, values in one.items():
        for process in found:
            np.testing.assert_array_equal(process[name], found[0][name])
            np.testing.assert_allclose(process[name], values, atol=1e-6)
    first, *_, last = (v for n, v in one.items() if "/weights/" in n)
    assert np.isfinite(last).all() and np.abs(last - first).max() > 0.02
    # What a checkpoint in the middle of an update stores.
    assert (f"{optimizer}/kept/0" in one) == (optimizer != "sgd")


def test_a_batch_within_an_update_sends_no_gradients(found):
    *within, last = found[0]["messages"]
    assert len(within) == gradients_run.STEPS - 1 and max(within) <= 1
    # The gradients of the last batch, and those that were accumulated.
    assert last >= 2 * WEIGHTS
