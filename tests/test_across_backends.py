"""TensorFlow, JAX and PyTorch give the same numbers.

Each runs `backend_run.py` in a process of its own; as the comparison covers
all of them, it runs once, in PyTorch's pass, the shortest.
"""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

BACKENDS = ("tensorflow", "jax", "torch")
HERE = pathlib.Path(__file__).parent

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="runs once, for all backends"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    for backend in BACKENDS:
        path = os.pathsep.join(map(str, (HERE, HERE.parent)))
        subprocess.run(
            [
                sys.executable,
                str(HERE / "backend_run.py"),
                str(folder / f"{backend}.npz"),
            ],
            env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": path},
            check=True,
        )
    return {b: dict(np.load(folder / f"{b}.npz")) for b in BACKENDS}


@pytest.mark.parametrize("optimizer", ["stock", "rows"])
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_hundred_steps_of_adamw(results, backend, optimizer):
    a, b = results["jax"], results[backend]
    losses = f"{optimizer}/losses"
    assert a[losses].shape == (100,)
    assert np.ptp(a[losses]) > 0.1
    assert np.abs(a[losses] - b[losses]).max() <= 1e-4
    assert set(a) == set(b)
    weights = [key for key in a if key.startswith(f"{optimizer}/weight/")]
    worst = max(np.abs(a[key] - b[key]).max() for key in weights)
    assert worst <= 5e-5


@pytest.mark.parametrize("found", ["preset", "diversity"])
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_the_preset_gives_the_same_numbers(results, backend, found):
    """Its logits, and the divergence of its heads."""
    a, b = (results[name][found] for name in ("jax", backend))
    assert np.ptp(a) > 0.1
    assert np.abs(a - b).max() <= 1e-4
