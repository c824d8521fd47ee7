"""Draws of `fit` and `evaluate` depend on seed and step, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import FASTEST
from builders import MANY_STEPS
from builders import SIDE
from builders import array
from builders import backbone
from builders import clip
from builders import difference
from builders import fast
from builders import features
from builders import raw
from builders import roberta
from builders import shallow
from builders import slow_on
from builders import tokenizer
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.tasks.fit.data_path import Steps

ROWS, BATCH = 8, 2
STEPS = ROWS // BATCH


class Seen(kbt.BridgeTowerMaskedLMPreprocessor):
    """Keeps the steps that it saw, and the first letters of their texts."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = []

    def call(self, x, y=None, sample_weight=None):
        tf.numpy_function(self._keep, [x["step"], x["text"]], [])
        return super().call(x, y, sample_weight)

    def _keep(self, step, texts):
        firsts = [text[:1] for text in np.asarray(texts, "bytes")]
        self.steps.append((int(step), [first.decode() for first in firsts]))

    def taken(self):
        """Step to texts, of what came since the last call."""
        found, self.steps = dict(self.steps), []
        return found


@pytest.fixture(scope="module")
def task():
    preprocessor = Seen(
        tokenizer(24), kbt.BridgeTowerImageConverter(SIDE), rate=0.3
    )
    task = kbt.BridgeTowerMaskedLM(shallow(), preprocessor)
    task.start = task.get_weights()
    # Compiled once, which takes longer than all steps.
    fast(task, keras.optimizers.SGD(0.1), jit_compile=MANY_STEPS)
    return task


def fresh(task):
    """The task as it was before its first step."""
    task.set_weights(task.start)
    task.optimizer.iterations.assign(0)
    task.preprocessor.taken()
    return task


def data(rows=ROWS):
    x, _ = raw(rows)
    x["text"] = [f"{chr(97 + i)} {text}" for i, text in enumerate(x["text"])]
    return x


def dataset(rows=ROWS):
    return tf.data.Dataset.from_tensor_slices(data(rows)).batch(BATCH)


@slow_on("tensorflow")
def test_equal_fits_are_equal_to_the_bit(task):
    found = []
    for x, sizes in (
        (data(), {"batch_size": BATCH, "shuffle": False}),
        (dataset(), {}),
    ):
        given = dict(epochs=2, validation_data=dataset(4), verbose=0, **sizes)
        history = fresh(task).fit(x, **given).history
        found.append((history, task.get_weights()))
    (losses, weights), (other_losses, other_weights) = found
    assert losses == other_losses
    for a, b in zip(weights, other_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@slow_on("tensorflow")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_end_of_a_dataset_is_no_step(task):
    """Also if the number of batches is unknown."""
    ends = []
    for x in (dataset(), dataset().filter(lambda _: True)):
        fresh(task).fit(x, epochs=3, verbose=0)
        ends.append([array(v) for v in task.optimizer.variables])
        assert ends[-1][0] == 3 * STEPS
        ends[-1] += task.get_weights()
    for known, unknown in zip(*ends, strict=True):
        np.testing.assert_array_equal(known, unknown)


@slow_on("tensorflow", "jax")
def test_steps_count_on(task):
    """Over epochs, calls, and an iterator that ends within an epoch."""
    made = fresh(task).preprocessor
    task.fit(dataset(), epochs=2, verbose=0)
    assert sorted(made.taken()) == list(range(2 * STEPS))
    task.fit(dataset().repeat(), epochs=2, steps_per_epoch=2, verbose=0)
    assert {8, 9, 10, 11} <= set(made.taken())
    task.evaluate(dataset(), verbose=0)
    assert sorted(made.taken()) == list(range(STEPS))
    fresh(task)
    own = dataset(4).enumerate(start=40)
    task.fit(own.map(lambda i, x: {**x, "step": i}), verbose=0)
    assert sorted(made.taken()) == [40, 41]


@FASTEST
def test_batches_by_hand_draw_as_in_fit(task):
    made, x = fresh(task).preprocessor, data(BATCH)
    steps = []
    for call in (task.train_on_batch, task.train_on_batch, task.test_on_batch):
        call(x)
        steps += made.taken()
    assert steps == [0, 1, 0]


@FASTEST
def test_shuffled_arrays(task):
    made = fresh(task).preprocessor

    def orders(**kwargs):
        keras.utils.set_random_seed(3)
        history = (
            fresh(task)
            .fit(data(), batch_size=BATCH, epochs=2, verbose=0, **kwargs)
            .history
        )
        seen = made.taken()
        texts = [seen[step] for step in range(2 * STEPS)]
        return sum(texts[:STEPS], []), sum(texts[STEPS:], []), history

    letters = [chr(97 + i) for i in range(ROWS)]
    assert orders(shuffle=False)[:2] == (letters, letters)
    # As by Keras, they are unless this is refused.
    first, second, history = orders()
    assert sorted(first) == sorted(second) == letters
    assert letters != first != second
    assert orders(shuffle=True) == (first, second, history)


@FASTEST
def test_parts_of_lists(task):
    made = fresh(task).preprocessor
    values = dict(batch_size=BATCH, verbose=0)
    task.fit(data(), validation_split=0.25, **values)
    # Six rows to train on, then the last two.
    *trained, (_, last) = made.steps
    assert sorted(sum((texts for _, texts in trained), [])) == list("abcdef")
    assert sorted(last) == ["g", "h"]
    assert sorted(made.taken()) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least one sample"):
        task.fit(data(), validation_split=1.0, **values)
    for refused in ({"validation_split": 0.5}, {"shuffle": True}):
        with pytest.raises(ValueError, match="needs `x` as a dict"):
            task.fit(dataset(), **refused)


@FASTEST
def test_validation_arguments_without_effect_are_rejected(task):
    held_out = {"validation_data": dataset()}
    for given in (
        {"validation_split": 0.5, **held_out},
        {"validation_batch_size": 4},
        {"validation_batch_size": 4, **held_out},
    ):
        with pytest.raises(ValueError, match=f"`{[*given][0]}` must"):
            task.fit(data(), verbose=0, **given)


def test_accumulated_steps_count_singly():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    weight = keras.Variable(np.zeros(2, "float32"))
    steps = Steps(optimizer)
    for _ in range(7):
        optimizer.apply([ops.ones(2)], [weight])
    assert int(array(optimizer.iterations)) == 2
    assert Steps(optimizer).first == 7
    # As of a run that a callback restored, or whose epoch ended within
    # `steps_per_execution`.
    assert steps.first == 0
    steps.on_epoch_begin(1)
    assert steps.first == 7
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    assert Steps(scaled).first == 7


def test_random_layers_of_a_task_draw_in_training():
    # Not by dropout, which PyTorch draws by itself.
    body = backbone(clip(layers=2), roberta(layers=2), bridge="static_manager")
    task = kbt.BridgeTowerVQA(body, answers=["yes", "no"])
    states = [v for v in body.fusion.variables if v.path.endswith("_state")]
    before = [array(v) for v in states]
    task.compile(
        "sgd", "mse", run_eagerly=keras.config.backend() == "tensorflow"
    )
    x = features(batch=2)
    task.train_on_batch(x, array(task(x)))
    assert any(difference(v, b) for v, b in zip(states, before, strict=True))
