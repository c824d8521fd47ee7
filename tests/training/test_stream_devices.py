"""Raw streams of records train on several devices as on one."""

import pathlib

import forks
import launch
import numpy as np
import pytest
import streams
from builders import LONG_ELSEWHERE
from launch import BACKEND

pytestmark = LONG_ELSEWHERE

RUN = pathlib.Path(__file__).parent.parent / "stream_devices_run.py"
TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


@pytest.fixture
def folder(tmp_path):
    """Write ten samples, one of them without a picture."""
    records = [streams.record("vqa", i, samples=1) for i in range(10)]
    first = records[0]
    records[0] = streams.Record(first.key, (b"",), first.samples, "s")
    streams.write_unchecked(tmp_path, records, num_shards=1)
    return tmp_path


def run(folder, kinds, environments):
    command = [RUN, kinds, folder, folder / "{}.npz"]
    processes = forks.started([command] * len(environments), environments)
    launch.codes(processes)
    files = (folder / f"{i}.npz" for i in range(len(environments)))
    # Read before the next run writes them again.
    return [dict(np.load(file)) for file in files]


def check(one, other, kind):
    names = [key.removeprefix("none/") for key in one if key[:5] == "none/"]
    assert {"fit/loss", "test/loss", "test/predictions"} <= {*names}
    for name in names:
        np.testing.assert_allclose(
            other[f"{kind}/{name}"], one[f"none/{name}"], atol=1e-5
        )


def test_streams_train_as_on_one_device(folder):
    environments = [TWO_DEVICES]
    if BACKEND == "torch":
        environments = launch.two_processes()
    for found in run(folder, "none,data_parallel", environments):
        check(found, found, "data_parallel")
