"""Training loops of a user's own, and steps by hand, equal to `fit`."""

import functools

import custom_loop
import every_task
import keras
import numpy as np
import pytest
from builders import array
from builders import difference
from builders import randomise
from every_task import BATCH
from every_task import TASKS
from every_task import only
from every_task import rows

ON_TORCH = keras.config.backend() == "torch"
# One that draws and whose loss reads a weight, and one of the plainest.
SOME = ("pretraining", "text_regressor") if ON_TORCH else ("text_regressor",)
EACH = only(*SOME)
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def asked(any_backbone):
    """A task, three batches, and what `fit` makes of them."""

    @functools.cache
    def made(name):
        # How far three steps move the weights depends on where they start.
        keras.utils.set_random_seed(0)
        model = randomise(every_task.make(name, any_backbone))
        eager = keras.config.backend() != "jax"
        model.compile(keras.optimizers.SGD(0.15), run_eagerly=eager)
        model.optimizer.build(model.trainable_variables)
        model.first = every_task.values(model)
        x, y = every_task.raw(name), TASKS[name].y
        places = [(0, 2), (2, 4), (1, 3)]
        batches = [(rows(x, *p), rows(y, *p)) for p in places]
        options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
        for epoch, batch in enumerate(batches):
            model.fit(*batch, epochs=epoch + 1, initial_epoch=epoch, **options)
        return model, batches, _weights(model)

    def get(task):
        model, *others = made(task)
        return every_task.restore(model), *others

    return get


def _weights(model):
    return {w.path: array(w) for w in model.weights}


@pytest.mark.parametrize("task", EACH)
def test_custom_loop(task, asked):
    """A training loop of one's own"""
    model, batches, fitted = asked(task)
    start = _weights(model)
    losses = list(custom_loop.steps(model, batches))
    assert len(losses) == len(batches) and np.isfinite(losses).all()
    assert difference(fitted, start) > 1e-4
    assert difference(_weights(model), fitted) <= ROUNDING


@pytest.mark.parametrize("task", EACH)
def test_train_on_batch(task, asked):
    """`train_on_batch`, `test_on_batch`, `predict_on_batch` of raw inputs"""
    model, batches, fitted = asked(task)
    # What is drawn does not depend on draws by hand.
    model.preprocess_samples(*batches[0])
    for x, y in batches:
        model.train_on_batch(x, y)
    assert difference(_weights(model), fitted) <= ROUNDING
    # Draws are those of the first batch, as in `evaluate`.
    x, y = batches[0]
    expected = model.evaluate(x, y, BATCH, verbose=0, return_dict=True)
    model.reset_metrics()
    scores = model.test_on_batch(x, y, return_dict=True)
    assert scores == pytest.approx(expected, abs=1e-6)
    outputs = model.predict_on_batch(x)
    expected = model.predict(x, batch_size=BATCH, verbose=0)
    assert_close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    keras.tree.map_structure(assert_close, outputs, expected)
