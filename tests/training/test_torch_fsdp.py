"""Split weights of PyTorch: passes of `fit` after errors and changes."""

import json
import pathlib
import re

import forks
import fsdp_run
import launch
import numpy as np
import pytest
from launch import BACKEND

from keras_bridgetower.distribution.strategy import Strategy

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch's way")
RUN = pathlib.Path(__file__).with_name("fsdp_run.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    environments = launch.two_processes()
    launch.codes(forks.started([[RUN, folder]] * 2, environments))
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]


def test_averages_replace_all_weights(found):
    one = fsdp_run.averages(Strategy())
    for process in found:
        for mine, given in zip(process["averages"], one, strict=True):
            np.testing.assert_allclose(mine, given, atol=1e-6)


def test_an_error_in_all_processes_loses_nothing(found):
    assert [process["after an error"] for process in found] == [0.0, 0.0]


def test_weights_can_be_frozen_between_passes(found):
    for process in found:
        frozen, not_frozen = process["moved"]
        assert frozen == 0.0 and not_frozen > 1e-4


def test_what_would_read_or_mix_parts_is_refused(found):
    texts = {
        "callback": "use a `Checkpoint`.*Received: ModelCheckpoint",
        "batch": "call it in place of `train_on_batch`",
        "optimizer": "needs one of the optimizers.*Received: Adafactor",
    }
    for process in found:
        for name, text in texts.items():
            assert re.search(text, process["refused"][name]), name
