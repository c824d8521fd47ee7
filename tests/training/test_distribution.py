"""Training on several devices equals training on one."""

import pathlib
import re

import every_task
import forks
import gradients_run
import keras
import launch
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import MANY_STEPS
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import bert
from builders import deit
from builders import fast
from builders import features
from builders import shallow
from builders import slow_on
from builders import vit
from launch import BACKEND

import keras_bridgetower as kbt
from keras_bridgetower import checks
from keras_bridgetower.distribution import strategy as strategies
from keras_bridgetower.distribution.strategy import Several
from keras_bridgetower.models.bridges import BRIDGES
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.training import planning

RUN = pathlib.Path(__file__).parent.parent / "distribution_run.py"
KINDS = {
    "jax": ["data_parallel", "fsdp", "hybrid", "model_parallel"],
    "tensorflow": ["data_parallel"],
    "torch": ["data_parallel", "fsdp", "hybrid"],
}[BACKEND]
# Each must be compiled. Slow tests run all of them.
SOME_KINDS = ["fsdp"] if BACKEND == "jax" else ["data_parallel"]
ONE_PROCESS = {
    "jax": {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    "tensorflow": {"DEVICES": "2"},
}
TOLERANCE = {"sgd": 1e-6, "accumulated": 1e-6}
TOLERANCE["adamw"] = 5e-6 if BACKEND == "torch" else 5e-5


def run(folder, environments, kinds, optimizers):
    """Return the arrays that each process saved, by kind and name."""
    command = [RUN, ",".join(kinds), optimizers, folder / "{}.npz"]
    launch.codes(forks.started([command] * len(environments), environments))
    found = []
    for rank in range(len(environments)):
        ways = {}
        for key, value in np.load(folder / f"{rank}.npz").items():
            way, name = key.split("/", 1)
            ways.setdefault(way, {})[name] = value
        found.append(ways)
    return found


def launched(folder, optimizers, task="both", kinds=KINDS):
    environments = [ONE_PROCESS.get(BACKEND)]
    given = {"TASK": task}
    if BACKEND == "torch":
        groups = "hybrid" in kinds
        environments = launch.several_processes(4 if groups else 2)
        # A row for each process: contrastive losses depend on the batches.
        given |= {"TESTED": "20"} if groups else {}
    environments = [e | given for e in environments]
    return run(folder, environments, ["one", *kinds], optimizers)


def differences(one, other):
    """Return the largest differences of weights, training and test logs."""
    worst = {"weight": 0.0, "fit": 0.0, "test": 0.0}
    for name, value in one.items():
        group = name.split("/")[-2 if "fit" in name or "test" in name else 1]
        # Keras weighs the losses of single outputs by batches, not by rows,
        # where TensorFlow does not know how many rows there are.
        partial = name in ("test/vqa_loss", "test/itm_loss", "test/itc_loss")
        if not (partial and BACKEND == "tensorflow"):
            difference = np.abs(other[name] - value).max()
            worst[group] = max(worst[group], difference)
    return worst


def check(found, kinds, optimizer):
    for process in found:
        for kind in kinds:
            worst = differences(process["one"], process[kind])
            assert worst["weight"] <= TOLERANCE[optimizer], kind
            assert worst["fit"] <= 1e-5 and worst["test"] <= 1e-5, kind


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    return launched(folder, "sgd", kinds=SOME_KINDS)


def test_ten_steps_equal_one_device(found):
    check(found, SOME_KINDS, "sgd")


TASKS = [*((name, "both") for name in TOLERANCE), ("sgd", "matching")]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer, task", TASKS)
def test_ten_steps_of_each_kind_equal_one_device(tmp_path, optimizer, task):
    check(launched(tmp_path, optimizer, task), KINDS, optimizer)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="a choice of PyTorch alone")
def test_split_weights_with_gradients_in_bfloat16(tmp_path):
    for process in launched(tmp_path, "sgd", kinds=["bfloat16"]):
        worst = differences(process["one"], process["bfloat16"])
        assert 1e-6 < worst["weight"] < 1e-3 and worst["fit"] < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="its only kind, tested above")
@pytest.mark.parametrize("optimizer, task", TASKS)
def test_two_processes(tmp_path, optimizer, task):
    # JAX needs as many rows as all devices divide.
    given = {"TESTED": "16", "TASK": task}
    (tmp_path / "one").mkdir()
    one = run(tmp_path / "one", [given], ["one"], optimizer)[0]
    environments = [one | given for one in launch.two_processes()]
    found = run(tmp_path, environments, ["multi_worker"], optimizer)
    check([process | one for process in found], ["multi_worker"], optimizer)


def hard_negatives(x):
    """Return the rows that all rows of one device draw, images and texts."""
    rows = np.arange(len(x))
    _, places, _ = pair_objectives.make_objective("hard_negatives").draw(
        0, rows
    )
    weights = np.exp(2.0 * x @ x.T) * (rows[:, None] != rows)
    sums = weights.cumsum(1) / weights.sum(1, keepdims=True)
    return [(sums > place[:, None]).argmax(1) for place in places.T]


@pytest.mark.skipif(BACKEND == "jax", reason="its arrays are global")
def test_objectives_on_replicas_of_unequal_size(found):
    """Compare with one device."""
    ways = {k[-1]: v for one in found for k, v in one.items()}
    x = ways["0"]["x"]
    for rank, own in (("0", slice(0, 3)), ("1", slice(3, 5))):
        np.testing.assert_array_equal(ways[rank]["rows"], x)
        assert ways[rank]["offset"] == own.start
        assert ways[rank]["sum"] == 1 + 2
        # Pairs reach over the edge of a replica, as on one device.
        following = np.roll(x, -1, axis=0)[own]
        np.testing.assert_array_equal(ways[rank]["next"], following)
        false, _ = pair_objectives.make_objective("ranking").draw(
            0, np.arange(5)
        )
        rows = np.arange(5)[:, None]
        # A row's gradient counts how often any replica took it.
        counts = np.bincount((rows + false).ravel(), minlength=5)[own]
        np.testing.assert_array_equal(ways[rank]["taken"].T, [counts] * 2)
        texts = np.concatenate([rows, rows + false], axis=1)
        scores = (x[texts] * x[:, None]).sum(-1)[own]
        np.testing.assert_allclose(ways[rank]["ranked"], scores, rtol=1e-5)
        pairs = ways[rank]["hard"]
        np.testing.assert_array_equal(pairs[:, :2, :2], x[own, None][:, [0, 0]])
        np.testing.assert_array_equal(
            pairs[:, ::2, 2:], x[own, None][:, [0, 0]]
        )
        images, texts = hard_negatives(x)
        np.testing.assert_array_equal(pairs[:, 1, 2:], x[images][own])
        np.testing.assert_array_equal(pairs[:, 2, :2], x[texts][own])
    logits, labels = ways["0"]["logits"].astype("float64"), ways["0"]["labels"]
    right = np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)
    losses = np.log(np.exp(logits).sum(-1)) - right[..., 0]
    # The mean of the replicas' means, each weighed by its rows.
    mean = np.concatenate([ways["0"]["mlm"], ways["1"]["mlm"]]).mean()
    assert mean == pytest.approx(losses[labels >= 0].mean(), rel=1e-5)


def test_no_attribute_of_a_framework_is_replaced(found):
    """Compare classes and modules before the import and after each step."""
    for process in found:
        assert process["frameworks"]["replaced"].tolist() == []


@pytest.mark.skipif(BACKEND == "torch", reason="saves in test_ranks")
def test_weights_of_several_devices_are_saved_whole(found):
    several = found[0][SOME_KINDS[0]]
    assert several["saved"] == 0
    # Eight devices cannot divide a few small weights.
    assert BACKEND != "jax" or several["share"] < 0.2


@pytest.fixture
def reset(monkeypatch):
    for name in ("WORLD_SIZE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    yield
    keras.distribution.set_distribution(None)
    kbt.distribute("none")


# Neither has the environment variables of its launcher.
ALONE = {
    "jax": [("set KERAS_DISTRIBUTION_JOB_ADDRESSES", "multi_worker", {})],
    "tensorflow": [("variable TF_CONFIG, such as", "multi_worker", {})],
    "torch": [],
}[BACKEND]
REFUSED = [
    *ALONE,
    ("kind='dp'", "dp", {}),
    ("`devices` must be 1 or left out.*devices=9", "none", {"devices": 9}),
]
if BACKEND == "jax":
    values = {"model_devices": 0}
    REFUSED += [("must be an integer from 1", "model_parallel", values)]
    divide = "`shard_devices` must divide the 1 devices"
    REFUSED += [(divide, "fsdp", {"shard_devices": 2})]
else:
    REFUSED += [("on .*. Received: kind='model_", "model_parallel", {})]
if BACKEND == "torch":
    wrong = {"gradient_dtype": "float16"}
    REFUSED += [("`gradient_dtype` must be one of", "data_parallel", wrong)]
if BACKEND != "torch":
    many = "`devices` must be from 1 to 1.*devices=9"
    REFUSED += [
        (many, kind, {"devices": 9}) for kind in ("data_parallel", "auto")
    ]


def test_kinds_and_devices_that_are_absent_are_rejected(reset):
    for message, kind, values in REFUSED:
        with pytest.raises(ValueError, match=message):
            kbt.distribute(kind, **values)


@FASTEST
def test_the_kernels_of_all_tasks_and_encoders_are_split():
    from keras_bridgetower.distribution import on_jax

    with planning.meta_device():
        shared = shallow()
        models = [every_task.make(name, shared) for name in every_task.TASKS]
        models += [backbone(bridge=name) for name in BRIDGES]
        models += [backbone(vit(), bert()), backbone(deit(), bert())]
    split = re.compile("|".join(dict(on_jax.MODEL_ROWS)))
    small = re.compile("patch_embedding/|_projection_|_pooler/|_bridge_")
    paths = {w.path for model in models for w in model.weights}
    kernels = {path for path in paths if path.endswith("/kernel")}
    whole = [p for p in kernels if not split.fullmatch(p)]
    assert whole and [p for p in whole if not small.search(p)] == []


@pytest.mark.skipif(BACKEND == "jax", reason="JAX uses it")
def test_keras_distribution_is_rejected(reset):
    mesh = keras.distribution.DeviceMesh((1,), ("batch",), ["cpu:0"])
    layout = keras.distribution.DataParallel(device_mesh=mesh)
    keras.distribution.set_distribution(layout)
    with pytest.raises(ValueError, match="`keras.distribution` must not be"):
        kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)


@pytest.mark.skipif(BACKEND == "torch", reason="needs a launcher")
def test_tasks_outside_of_the_scope_are_rejected(reset):
    backbone = shallow()
    strategy = kbt.distribute("data_parallel", devices=1)
    message = r"must be built and compiled inside of `strategy.scope\(\)`"
    with pytest.raises(ValueError, match=message):
        kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    # The error does not blame the preset's files.
    with pytest.raises(checks.BuiltElsewhere, match=message):
        kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    if BACKEND == "tensorflow":
        with strategy.scope(), pytest.raises(ValueError, match="built before"):
            kbt.BridgeTowerVQA(backbone, answers=ANSWERS)


@slow_on("tensorflow", "jax")
def test_tasks_compiled_for_other_devices_are_rejected(reset):
    task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    fast(task, "sgd", jit_compile=MANY_STEPS)
    x, y = features(batch=2), np.eye(4, dtype="float32")[:2]
    strategies.set_current(Several())
    message = "compiled for one device, to run on Several of 1 replicas"
    for run, data in (
        *((run, (x, y)) for run in (task.fit, task.evaluate)),
        (task.train_on_batch, (x, y)),
        (task.predict, (x,)),
    ):
        with pytest.raises(ValueError, match=message):
            run(*data)
    # Weights and optimizer are unchanged.
    kbt.distribute("none")
    task.fit(x, y, verbose=0)


class Broken(keras.callbacks.Callback):
    """Raises after a number of batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def count(self, batch, logs=None):
        self.left -= 1
        if self.left < 0:
            raise OSError("no such picture")

    on_train_batch_end = on_test_batch_begin = on_predict_batch_begin = count


@pytest.mark.skipif(BACKEND != "jax", reason="the others never lose them")
@slow_on("jax")
def test_weights_are_kept_after_an_error():
    task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    task.compile(keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=True)
    x, y = features(task.backbone, batch=4), np.eye(4, dtype="float32")
    with pytest.raises(ValueError):  # Before the optimizer is built.
        task.fit(x, y[:, :3], verbose=0)
    task.fit(x, y, verbose=0)
    kept = [*task.variables, *task.optimizer.variables]
    before = [array(v) for v in kept]
    runs = [
        (OSError, run, data, {"batch_size": 1, "callbacks": [Broken(batches)]})
        for run, data in ((task.evaluate, (x, y)), (task.predict, (x,)))
        for batches in (2, 0)
    ]
    for error, run, data, values in (
        *runs,
        (ValueError, task.fit, (x, y[:, :3]), {}),
    ):
        with pytest.raises(error):
            run(*data, verbose=0, **values)
        assert_same_weights(kept, before)
    # Steps that were done stay done.
    with pytest.raises(OSError, match="no such picture"):
        task.fit(x, y, verbose=0, callbacks=[Broken(0)])
    assert array(task.optimizer.iterations) == 2
    assert any((array(v) != b).any() for v, b in zip(kept, before, strict=True))


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)]
)
def averaged(request, tmp_path_factory):
    """Return what the processes saved that average their gradients."""
    if BACKEND != "torch":
        pytest.skip("only PyTorch's way")
    folder, count = tmp_path_factory.mktemp("gradients"), request.param
    environments = launch.several_processes(count)
    command = [gradients_run.__file__, folder]
    launch.codes(forks.started([command] * count, environments))
    return [dict(np.load(folder / f"{i}.npz")) for i in range(count)]


@pytest.mark.parametrize("optimizer", gradients_run.OPTIMIZERS)
def test_weights_are_those_of_one_process(averaged, optimizer):
    """Compare clipping, averages, loss scaling and a batch that is skipped."""
    one = gradients_run.trained(optimizer)
    for name, values in one.items():
        for process in averaged:
            np.testing.assert_array_equal(process[name], averaged[0][name])
            np.testing.assert_allclose(process[name], values, atol=1e-6)
    first, *_, last = (v for n, v in one.items() if "/weights/" in n)
    assert np.isfinite(last).all() and np.abs(last - first).max() > 0.02
    # What a checkpoint in the middle of an update stores.
    assert (f"{optimizer}/kept/0" in one) == (optimizer != "sgd")


def test_gradients_in_bfloat16(averaged):
    """Weights stay equal in all processes, and differ a little from others."""
    for name, values in gradients_run.trained("sgd").items():
        found = [process[f"bfloat16/{name}"] for process in averaged]
        np.testing.assert_array_equal(found[0], found[-1])
        assert 1e-6 < np.abs(found[0] - values).max() < 1e-3


def test_an_update_sends_its_gradients_once(averaged):
    *within, last = averaged[0]["messages"]
    assert len(within) == gradients_run.STEPS - 1 and max(within) <= 1
    # Besides, whether each of the four weights was used.
    assert last == (4 * 6 + 6 + 6 + 1) + 4
