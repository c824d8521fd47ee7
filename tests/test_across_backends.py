"""TensorFlow, JAX and PyTorch give the same numbers.

What the shipped preset gives is compared on each with what JAX gave, as it is
written down in `preset_numbers.json`. For the rest each runs `backend_run.py`
in a process of its own; as the comparison covers all of them, it runs once, in
PyTorch's pass, the shortest.
"""

import json
import os
import pathlib
import subprocess
import sys

import backend_run
import forks
import keras
import launch
import numpy as np
import pytest
from builders import slow_on
from every_task import TASKS

BACKENDS = ("tensorflow", "jax", "torch")
HERE = pathlib.Path(__file__).parent

ONCE = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="runs once, for all backends"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Arrays by name of each backend, of one part of `backend_run.py`."""
    folder, made = tmp_path_factory.mktemp("backends"), {}

    def get(part):
        if part not in made:
            made[part] = {b: run(b, part, folder) for b in BACKENDS}
        return made[part]

    return get


def run(backend, part, folder):
    path = folder / f"{backend}-{part}.npz"
    places = (HERE, HERE / "conformance", HERE.parent)
    command = [HERE / "backend_run.py", path, part]
    if backend == keras.config.backend():
        launch.codes(forks.started([command], [{}]))
    else:
        found = {"PYTHONPATH": os.pathsep.join(map(str, places))}
        subprocess.run(
            [sys.executable, *map(str, command)],
            env=os.environ | {"KERAS_BACKEND": backend} | found,
            check=True,
        )
    return dict(np.load(path))


@ONCE
@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_step_of_each_task(results, backend, name):
    """Its outputs, its loss, and its weights after the step."""
    found = results("tasks")
    a, b = found["jax"], found[backend]
    assert set(a) == set(b)
    of_task = [key for key in a if key.startswith(f"{name}/")]
    assert len(of_task) > 20
    for key in of_task:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-4)


@slow_on("jax")
def test_the_preset_gives_the_same_numbers():
    """Its logits, and the divergence of its heads.

    If the preset is trained anew, JAX writes them again:
    `KERAS_BACKEND=jax python tests/backend_run.py preset_numbers.json preset`.
    """
    written = json.loads((HERE / "preset_numbers.json").read_text())
    found = backend_run.tiny_preset()
    assert set(found) == set(written) == {"preset", "diversity"}
    for name, values in found.items():
        assert np.ptp(written[name]) > 0.1
        assert np.abs(values - written[name]).max() <= 1e-4
