"""What Keras users do with a model, done with each of the ten tasks.

Each row is right, or is one clear error. What no backend changes runs on
PyTorch alone, but in the long version; the others run the rows in which Keras
itself differs. Functional models over the graph of a task are such, too.
"""

import copy
import pickle
import subprocess

import every_task
import keras
import launch
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from builders import eager
from builders import fast
from builders import moved
from builders import randomise
from builders import run
from builders import shallow
from builders import some_everywhere
from every_task import only
from every_task import state

ON_TORCH = keras.config.backend() == "torch"
# One that draws from batches of pairs, and one that is soon compiled.
SOME = ("retrieval", "text_classifier")


def on_torch(*some):
    """All tasks, these always on PyTorch, the rest in the long version."""
    return only(*(some if ON_TORCH else ()))


# Which backend trains the tasks of this one, each soon without compiling.
OTHER = {"torch": "tensorflow", "tensorflow": "torch", "jax": "torch"}


def slots(task):
    return [array(v) for v in task.optimizer.variables]


def same_outputs(name, task, other):
    inputs = every_task.features(name, task)
    assert type(other) is type(task)
    assert differences(run(other, inputs), run(task, inputs)) == 0


def differences(a, b):
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return max(difference(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", on_torch(*SOME))
def test_clone_model_names_what_copies(name, trained, refused):
    """`keras.models.clone_model`."""
    with refused("copy.deepcopy.*from_config", NotImplementedError):
        keras.models.clone_model(trained(name))


@FASTEST
@pytest.mark.parametrize("part", ["backbone", "image_tower", "text_tower"])
def test_clone_model_refuses_parts_of_a_task(part):
    model = shallow()
    model = model if part == "backbone" else getattr(model, part)
    with pytest.raises(NotImplementedError, match="copy.deepcopy.*from_config"):
        keras.models.clone_model(model)
    copied = copy.deepcopy(model)
    assert type(copied) is type(model)
    assert type(type(model).from_config(model.get_config())) is type(model)


@pytest.mark.parametrize(
    "name", only("text_classifier", *(("vqa", "retrieval") if ON_TORCH else ()))
)
def test_saved_compiled(name, trained, tmp_path):
    """`.keras`, compiled, saved and loaded."""
    task = trained(name)
    task.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    same_outputs(name, task, loaded)
    assert max(np.abs(slot).max() for slot in slots(task)[2:]) > 0
    assert differences(slots(loaded), slots(task)) == 0
    # A step, by slots that belong to their weights, is the same.
    for one in (task, loaded):
        every_task.step(name, one)
    same_outputs(name, task, loaded)


@pytest.mark.parametrize("make", ["deepcopy", "pickle"])
@pytest.mark.parametrize("name", on_torch(*SOME))
def test_copies(name, make, trained):
    """A copy that goes on training."""
    task = trained(name)
    if make == "pickle":
        copied = pickle.loads(pickle.dumps(task))
    else:
        copied = copy.deepcopy(task)
    same_outputs(name, task, copied)
    assert differences(slots(copied), slots(task)) == 0
    # It has weights of its own.
    copied.weights[0].assign(array(copied.weights[0]) + 1)
    assert difference(copied.weights[0], task.weights[0]) > 0.5


# Tasks that this backend saved take a step in a process of another backend:
# each line of its input has the name of a task and its folder.
TAKES_STEPS = """
import torch, sys, pathlib, every_task, keras, numpy as np
for line in sys.stdin:
    name, folder = line.split(maxsplit=1)
    folder = pathlib.Path(folder.strip())
    task = keras.saving.load_model(folder / "first.keras")
    np.savez(folder / "before.npz", **every_task.state(task))
    # To compile takes longer than a step.
    task.run_eagerly, task.jit_compile = True, False
    every_task.step(name, task)
    np.savez(folder / "after.npz", **every_task.state(task))
    task.save(folder / "second.keras")
    print("done", name, flush=True)
"""


@pytest.fixture(scope="module")
def other_backend():
    """A callable that lets a process of another backend train a task."""
    backend = {"KERAS_BACKEND": OTHER[keras.config.backend()]}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = ["-c", TAKES_STEPS]
    (process,) = launch.started([command], [backend], **pipes, stderr=None)

    def train(name, folder):
        print(name, folder, file=process.stdin, flush=True)
        assert process.stdout.readline() == f"done {name}\n"

    try:
        yield train
    finally:
        # Its own end would take seconds.
        process.kill()
        with process:
            pass


@pytest.mark.parametrize("name", on_torch("image_classifier"))
def test_another_backend_goes_on(name, trained, tmp_path, other_backend):
    """`.keras`, trained on another backend, and back.

    Optimizers store their slots by number: one order on every backend.
    """
    trained(name).save(tmp_path / "first.keras")
    other_backend(name, tmp_path)
    loaded = keras.saving.load_model(tmp_path / "first.keras")
    start = state(loaded)
    assert difference(dict(np.load(tmp_path / "before.npz")), start) == 0
    every_task.step(name, loaded)
    after = dict(np.load(tmp_path / "after.npz"))
    assert difference(state(loaded), start) > 1e-3
    assert difference(state(loaded), after) <= 1e-4
    # What the other one saved then is here as it was there.
    back = keras.saving.load_model(tmp_path / "second.keras")
    assert difference(state(back), after) == 0


def features_of(name, task):
    made = every_task.features(name, task)
    return {key: array(made[key]) for key in task.input}


@FASTEST
@pytest.mark.parametrize("name", every_task.TASKS)
def test_a_graph_reads_the_weights_of_now(name, any_backbone):
    task = every_task.make(name, any_backbone)
    x = features_of(name, task)
    model = keras.Model(task.input, task.output)
    paths = [w.path for w in task.weights]
    assert [w.path for w in model.weights] == paths[: len(model.weights)]
    first = run(randomise(task, seed=1), x)
    second = run(randomise(task, scale=0.4, seed=2), x)
    # In all outputs the weights tell.
    pairs = zip(*map(keras.tree.flatten, (first, second)), strict=True)
    assert all(difference(a, b) > 1e-2 for a, b in pairs)
    assert differences(run(model, x), second) <= 1e-5


@LONG_ELSEWHERE
def test_one_output_trains_the_type_embedding():
    task = randomise(every_task.make("contrastive"))
    types = task.backbone.fusion.type_embedding
    for weight in task.weights:
        weight.trainable = weight is types
    model = keras.Model(task.input, task.output["image"])
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    x = features_of("contrastive", task)
    target = np.ones((len(x["images"]), task.projection_dim), "float32")
    changed = moved(task, lambda: model.train_on_batch(x, target))
    assert changed == {"fusion/type_embedding"}


@LONG_ELSEWHERE
def test_a_graph_that_shares_weights_is_not_copied(any_backbone):
    task = every_task.make("contrastive", any_backbone)
    model = keras.Model(task.input, task.output)
    with pytest.raises(
        NotImplementedError, match="task.*fusion/type_embedding"
    ):
        model.get_config()


@pytest.mark.parametrize("trainable", some_everywhere([False, True], True))
def test_another_choice_of_weights_needs_another_compile(trainable):
    task = every_task.make("image_classifier")
    x, y = every_task.given("image_classifier").values()
    task.backbone.trainable = not trainable
    fast(task)
    task.backbone.trainable = trainable
    message = "`compile` must be called again, with a new optimizer, after a"
    for train in (task.fit, task.train_on_batch):
        with pytest.raises(ValueError, match=message):
            train(x, y)
    if keras.config.backend() != "jax":  # There a step takes half a minute.
        eager(task)
        changed = moved(task, lambda: task.train_on_batch(x, y))
        assert changed == {w.path for w in task.trainable_weights}
