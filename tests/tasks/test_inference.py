"""Verbs from several threads, and after changes of layers."""

import concurrent.futures
import gc
import weakref

import every_task
import keras
import numpy as np
import pytest
from builders import MANY_STEPS
from builders import array
from builders import contrastive
from builders import fast
from builders import one_layer_each
from builders import randomise
from builders import raw
from builders import slow_on
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower import analysis
from keras_bridgetower.tasks.inference import Inference

X = raw(4)[0]
IMAGES, TEXTS = list(X["images"]), X["text"]


def attention(task, i):
    return analysis.attention_map(task, IMAGES[i], TEXTS[i]).word_maps


JOBS = {
    "embedder": lambda task, i: task.embed(texts=TEXTS[i]),
    "vqa": attention,
}


@slow_on("tensorflow", "jax")
def test_jobs_from_threads():
    """Meanwhile the main thread builds layers, whose weights stay initial."""
    tasks = {"vqa": randomise(vqa(**one_layer_each()))}
    tasks["embedder"] = randomise(contrastive("two_way"))
    made = [(name, i) for i in range(4) for name in JOBS] * 2

    def run(name, i):
        return array(JOBS[name](tasks[name], i))

    # From nothing compiled, so that threads meet at that too.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(run, *job) for job in made]
        norms = [keras.layers.LayerNormalization() for _ in range(50)]
        for norm in norms:
            norm.build((None, 3))
        found = [job.result() for job in waiting]
    assert all((array(norm.gamma) == 1).all() for norm in norms)
    for job, result in zip(made, found, strict=True):
        np.testing.assert_allclose(result, run(*job), rtol=0, atol=1e-6)


def test_verbs_while_the_task_is_trained():
    """Asked by a callback, in the thread of the training and in another."""
    model = randomise(every_task.make("text_regressor"))
    fast(model, keras.optimizers.SGD(0.1), MANY_STEPS)
    before, found, errors = model.rate(TEXTS), [], []

    def ask(batch, logs):
        # Twice: the second time is what the next step starts from.
        found.extend([model.rate(TEXTS), model.rate(TEXTS)])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            errors.append(pool.submit(model.rate, TEXTS).exception())

    watcher = keras.callbacks.LambdaCallback(on_train_batch_end=ask)
    values = dict(batch_size=2, verbose=0, callbacks=[watcher])
    model.fit({"text": TEXTS}, np.arange(4.0), **values)
    first, again, last, at_end = found
    assert np.abs(np.subtract(first, before)).max() > 1e-5
    assert first == again != last == at_end == model.rate(TEXTS)
    assert [type(error) for error in errors] == [RuntimeError] * 2
    assert "`rate` must wait until `fit`, which changes" in str(errors[0])


TAKES = keras.config.backend() == "jax"


@pytest.mark.parametrize(
    "first, second, refused",
    [
        ("read_lock", "read_lock", False),
        ("read_lock", "predicting", TAKES),
        ("testing", "testing", True),
        ("training", "read_lock", True),
        ("read_lock", "training", True),
    ],
)
def test_who_may_use_a_task_beside_whom(first, second, refused):
    inference = Inference(keras.Sequential([keras.layers.Dense(1)]))

    def enter():
        with getattr(inference, second)("second"):
            return "entered"

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with getattr(inference, first)("first"):
            # Callbacks run in the thread of the training.
            assert enter() == "entered"
            waiting = pool.submit(enter)
            if refused:
                with pytest.raises(RuntimeError, match="while `first` runs"):
                    waiting.result()
            else:
                assert waiting.result() == "entered"
        assert pool.submit(enter).result() == "entered"


def assign(model, folder):
    for weight in model.backbone.text_encoder.weights:
        if "gamma" in weight.path:
            weight.assign(array(weight) * 1.5)


def loaded_lora(model, folder):
    other = kbt.BridgeTowerBackbone.from_config(model.backbone.get_config())
    other.set_weights(model.backbone.get_weights())
    other.enable_lora(2)
    for weight in other.weights:
        if "lora" in weight.path:
            weight.assign(np.full(weight.shape, 0.2))
    other.save_lora_weights(folder / "adapters.lora.h5")
    model.backbone.load_lora_weights(folder / "adapters.lora.h5")


def quantized(model, folder):
    block = model.backbone.text_encoder.transformer_layers[0]
    block._feedforward_intermediate_dense.quantize("int8")


def asked(model):
    """The numbers of the texts, by two verbs."""
    return model.rate(TEXTS), model.predict({"text": TEXTS}, verbose=0)[:, 0]


def evaluate(model):
    return model.evaluate({"text": TEXTS}, np.ones(4), verbose=0)


@pytest.fixture(scope="module")
def changing():
    """A model that each test changes further."""
    model = randomise(every_task.make("text_regressor"))
    return fast(model, jit_compile=MANY_STEPS)


@pytest.mark.parametrize("change", [assign, loaded_lora, quantized])
@slow_on("jax")
def test_every_change_counts(change, changing, tmp_path):
    before = asked(changing)
    evaluate(changing)
    change(changing, tmp_path)
    # Layer by layer, by nothing that was compiled.
    x = changing.preprocessor({"text": TEXTS})
    eager = array(changing(x, training=False)).ravel()
    for found, earlier in zip(asked(changing), before, strict=True):
        np.testing.assert_allclose(found, eager, rtol=2e-5, atol=1e-6)
        assert np.abs(np.subtract(found, earlier)).max() > 1e-4
    expected = np.square(eager - 1).mean(), np.abs(eager - 1).mean()
    np.testing.assert_allclose(evaluate(changing), expected, rtol=2e-5)


def test_what_was_replaced_leaves_the_memory(changing):
    """Nothing that was compiled for another verb keeps it."""
    evaluate(changing)
    asked(changing)
    optimizer = weakref.ref(changing.optimizer)
    fast(changing, jit_compile=MANY_STEPS)
    asked(changing)
    gc.collect()
    assert optimizer() is None
