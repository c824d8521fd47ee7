"""Schedules, averages and runs count updates, not accumulated batches."""

import keras
import numpy as np
import pytest
import resume_run
import tensorflow as tf
from builders import ANSWERS
from builders import FASTEST
from builders import MANY_STEPS
from builders import array
from builders import assert_same_weights
from builders import fast
from builders import features
from builders import shallow
from builders import some_everywhere
from launch import BACKEND

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private.training import optimizer_value
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import WarmupPolynomial
from keras_bridgetower.training.runs.checkpoint import Checkpoint
from keras_bridgetower.training.runs.places import RunFolder

POWER = 2.0


class Rates(keras.callbacks.Callback):
    """Records the learning rate before each batch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate
        self.found.append(float(keras.ops.convert_to_numpy(rate)))


def expected(update, peak, total, warmup):
    """Return the rate by its closed form."""
    if update < warmup:
        return peak * update / warmup
    done = (update - warmup) / (total - warmup)
    return peak * (1 - done) ** POWER


def tiny():
    """Return the task that compiles fastest."""
    keras.utils.set_random_seed(0)
    return kbt.BridgeTowerImageClassifier(shallow(), labels=ANSWERS)


def pictures(count=8):
    """Return raw features and labels for `tiny`."""
    x = features(batch=count)["images"]
    return {"images": x}, np.arange(count) % 4


def test_accumulation_with_a_schedule_equals_larger_batches():
    """Train five batches per epoch, so that epochs end within an update."""
    found, rates = [], []
    x, y = pictures(20)
    for batch, parts in ((8, None), (4, 2)):
        model = tiny()
        optimizer = keras.optimizers.SGD(
            WarmupPolynomial(0.1, 5, 2, POWER),
            use_ema=True,
            gradient_accumulation_steps=parts,
        )
        fast(model, optimizer, jit_compile=MANY_STEPS)
        data = tf.data.Dataset.from_tensor_slices((x, y))
        # The rows of both epochs; a larger batch would span them.
        data, epochs = (data, 2) if parts else (data.repeat(2), 1)
        noted = Rates()
        model.fit(
            data.batch(batch), epochs=epochs, callbacks=[noted], verbose=0
        )
        assert array(optimizer.iterations) == 5
        found.append(model.trainable_weights)
        rates.append(noted.found)
    closed = [expected(u, 0.1, 5, 2) for u in range(5)]
    assert rates[0] == pytest.approx(closed)
    assert rates[1] == pytest.approx(np.repeat(closed, 2))
    assert_same_weights(*found, most=1e-6)
    # Averages replaced the weights: on JAX no array may be both.
    model.evaluate(data.batch(batch), verbose=0)
    model.fit(data.batch(batch), verbose=0)
    assert array(optimizer.iterations) == 7


@pytest.mark.parametrize("scaled", some_everywhere([False, True], False))
def test_averages_before_the_first_update_are_the_weights(scaled):
    optimizer = AdamW(1e-2, use_ema=True, gradient_accumulation_steps=8)
    if scaled:
        # Every step is skipped.
        sgd = keras.optimizers.SGD(0.1, use_ema=True)
        optimizer = keras.optimizers.LossScaleOptimizer(sgd, np.inf)
    model = fast(tiny(), optimizer, jit_compile=MANY_STEPS)
    found = [array(w) for w in model.trainable_weights]
    model.fit(*pictures(), batch_size=4, verbose=0)
    assert array(optimizer.iterations) == 0
    others = [model.trainable_weights]
    if not scaled:
        others.append(optimizer._model_variables_moving_average)
    for other in others:
        assert_same_weights(found, other)


def test_a_model_of_keras_counts_updates_with_ours():
    model = keras.Sequential([keras.layers.Dense(1)])
    schedule = WarmupPolynomial(1.0, 4, 2)
    model.compile(AdamW(schedule, gradient_accumulation_steps=3), "mse")
    rates = Rates()
    x = np.ones((12, 2), "float32")
    model.fit(x, x[:, :1], batch_size=1, callbacks=[rates], verbose=0)
    assert rates.found == pytest.approx(np.repeat([0.0, 0.5, 1.0, 0.5], 3))


def test_a_constant_rate_is_accumulated_in_the_first_step():
    """Build the optimizer while TensorFlow traces the step."""
    x, y = np.arange(8.0).reshape(8, 1), np.arange(8.0)[:, None]
    found = []
    for batch, parts in ((4, None), (2, 2)):
        dense = keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((1,)), dense])
        optimizer = keras.optimizers.LossScaleOptimizer(
            AdamW(1e-2, gradient_accumulation_steps=parts)
        )
        model.compile(optimizer, "mse", jit_compile=MANY_STEPS)
        model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
        assert array(optimizer.iterations) == 2
        found.append(array(dense.kernel))
    np.testing.assert_allclose(*found, rtol=1e-6)


class Skipped(keras.callbacks.Callback):
    """Keeps the number of skipped batches after each batch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        skipped = self.model.optimizer.skipped
        self.found.append(int(optimizer_value(self.model, skipped)))


PLACES = ["none", "data_parallel"] if BACKEND == "tensorflow" else ["none"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("broken", [0, 1])
def test_nonfinite_batches_count_as_zero(place, broken):
    """Compare with a batch whose rows all have weight 0."""
    rows, found = slice(2 * broken, 2 * broken + 2), []
    x, y = np.arange(8, dtype="float32").reshape(4, 2), np.ones((4, 1))
    weights, nan = np.ones(4, "float32"), x.copy()
    weights[rows], nan[rows] = 0, np.nan
    strategy = kbt.distribute(place, devices=1)
    for values, weighed in ((x, weights), (nan, None)):
        with strategy.scope():
            dense = keras.layers.Dense(1, kernel_initializer="ones")
            model = keras.Sequential([keras.Input((2,)), dense])
            optimizer = AdamW(1e-2, gradient_accumulation_steps=2)
            model.compile(optimizer, "mse", jit_compile=False)
            strategy.prepare(model)
        skipped = Skipped()
        kept = {"callbacks": [skipped], "sample_weight": weighed}
        model.fit(values, y, batch_size=2, shuffle=False, verbose=0, **kept)
        assert array(optimizer.iterations) == 1
        found.append([array(w) for w in model.trainable_weights])
    kbt.distribute("none")
    # It is reported after that batch, not after the update.
    assert skipped.found == [1 - broken, 1]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(other).all()


@FASTEST
@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: keras.optimizers.SGD(
                use_ema=True,
                ema_overwrite_frequency=2,
                gradient_accumulation_steps=2,
            ),
            "`ema_overwrite_frequency` must be",
        ),
        (
            lambda: keras.optimizers.MultiOptimizer(
                lambda variable: keras.optimizers.SGD()
            ),
            "must be a single one.*Received: MultiOptimizer",
        ),
    ],
)
def test_optimizers_that_cannot_count_updates_are_rejected(make, message):
    task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    with pytest.raises(ValueError, match=message):
        task.compile(make())


def run(folder, *callbacks):
    """Train six batches per epoch and four per update."""
    optimizer = AdamW(
        WarmupPolynomial(1e-2, 5, 2), gradient_accumulation_steps=4
    )
    task = resume_run.task(optimizer)
    checkpoint = Checkpoint(folder, resume_run.Rows(), every=2, keep=9)
    checkpoint.fit(task, 5, callbacks, verbose=0)
    return task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)


@FASTEST
def test_a_run_counts_updates(finished):
    folder, task = finished
    assert array(task.optimizer.iterations) == 5
    found = [path.name for path in RunFolder(folder).checkpoints()]
    # Every second update, and the ends of epochs and of the run.
    steps = ("1-0002", "2", "3", "4", "4-0002", "5")
    assert found == [f"step-00000000{step}" for step in steps]
    facts = RunFolder(folder).newest()[1]
    assert facts["step"] == 5 and facts["position"] == {"epoch": 3, "step": 2}


@FASTEST
@pytest.mark.parametrize(
    "ends, error",
    [
        # It continues from the end of the first epoch, within an update.
        ((7,), KeyboardInterrupt),
        # After a SIGTERM it saves its position in both.
        pytest.param(
            (10, resume_run.terminate), SystemExit, marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_continues_within_an_update(finished, tmp_path, ends, error):
    with pytest.raises(error):
        run(tmp_path, resume_run.After(*ends))
    assert RunFolder(tmp_path).checkpoints()[-1].name[-5] == "-"
    whole, part = (
        [*task.variables, *task.optimizer.variables]
        for task in (finished[1], run(tmp_path))
    )
    assert_same_weights(whole, part)
