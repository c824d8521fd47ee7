"""TensorFlow, JAX and PyTorch give the same numbers.

What the shipped preset gives is compared on each with what JAX gave, as it is
written down in `preset_numbers.json`. A step of each task is compared in
PyTorch's pass, the shortest, by a process of each backend that runs this file:

KERAS_BACKEND=jax python tests/package/test_across_backends.py OUT.npz
"""

# Before TensorFlow, see `around_tests.py`.
import torch  # noqa: F401, I001
import json
import os
import pathlib
import subprocess
import sys

import every_task
import keras
import numpy as np
import pytest
from builders import array
from builders import slow_on
from launch import BACKEND

import keras_bridgetower as kbt
from keras_bridgetower import analysis

BACKENDS = ("tensorflow", "jax", "torch")
HERE = pathlib.Path(__file__).parents[1]
NUMBERS = pathlib.Path(__file__).with_name("preset_numbers.json")


def steps_of_tasks():
    """Return outputs, loss and weights after one step of each task."""
    found = {}
    for name, case in every_task.TASKS.items():
        task = every_task.make(name)
        same_start(task)
        x, y = every_task.raw(name), case.y
        if task.preprocessor.reads_step:
            x["step"] = 0
        outputs = task.predict_on_batch(x)
        on_jax = BACKEND == "jax"
        task.compile(
            keras.optimizers.SGD(0.1),
            run_eagerly=not on_jax,
            jit_compile=on_jax,
        )
        found[f"{name}/loss"] = task.train_on_batch(x, y)[0]
        # Each backend orders the entries of a dict in its own way.
        for path, output in keras.tree.flatten_with_path(outputs):
            found["/".join(map(str, (name, "output", *path)))] = output
        for weight in task.trainable_weights:
            found[f"{name}/weight/{weight.path}"] = array(weight)
    return found


def same_start(model):
    """Set weights in which no backend's own random numbers have a part."""
    rng = np.random.default_rng(1)
    for weight in sorted(model.trainable_weights, key=lambda w: w.path):
        noise = rng.normal(size=weight.shape, scale=0.1)
        weight.assign(noise + weight.path.endswith("gamma"))


def tiny_preset():
    """Return logits of the shipped preset, and how its heads differ."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 64, 64, 3)).astype("uint8")
    images[:, 10:30, 10:30] = (255, 0, 0)
    questions = ["what color is the shape?", "is there a circle?"] * 2
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    x = {"images": images, "text": questions}
    found = analysis.head_diversity(vqa, [x])
    diversity = np.array([[*found.mean.values()], [*found.spread.values()]])
    return {"preset": vqa.predict(x, verbose=0), "diversity": diversity}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the arrays of each backend by name."""
    folder, found = tmp_path_factory.mktemp("backends"), {}
    paths = os.pathsep.join(map(str, (HERE, HERE / "conformance", HERE.parent)))
    for backend in BACKENDS:
        subprocess.run(
            [sys.executable, __file__, folder / f"{backend}.npz"],
            env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": paths},
            check=True,
        )
        found[backend] = dict(np.load(folder / f"{backend}.npz"))
    return found


@pytest.mark.skipif(BACKEND != "torch", reason="runs once, for all backends")
@pytest.mark.slow
@pytest.mark.parametrize("name", every_task.TASKS)
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_step_of_each_task(results, backend, name):
    """Compare outputs, loss, and weights after the step."""
    a, b = results["jax"], results[backend]
    assert set(a) == set(b)
    of_task = [key for key in a if key.startswith(f"{name}/")]
    assert len(of_task) > 20
    for key in of_task:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-4)


@slow_on("jax")
def test_the_preset_gives_the_same_numbers():
    """Compare logits, and the divergence of heads.

    If the preset is trained anew, JAX writes them again:
    `KERAS_BACKEND=jax python tests/package/test_across_backends.py`.
    """
    written = json.loads(NUMBERS.read_text())
    found = tiny_preset()
    assert set(found) == set(written) == {"preset", "diversity"}
    for name, values in found.items():
        assert np.ptp(written[name]) > 0.1
        assert np.abs(values - written[name]).max() <= 1e-4


if __name__ == "__main__":
    if sys.argv[1:]:
        np.savez(sys.argv[1], **steps_of_tasks())
    else:
        lists = {name: x.tolist() for name, x in tiny_preset().items()}
        NUMBERS.write_text(json.dumps(lists) + "\n")
