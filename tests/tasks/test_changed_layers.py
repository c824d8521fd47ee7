"""Functions are compiled again after a change of layers."""

import gc
import weakref

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
from builders import retrieval
from builders import shallow
from builders import slow_on
from builders import tokenizer

import keras_bridgetower as kbt

X = raw(2)[0]
IMAGES, TEXTS = list(X["images"]), X["text"]


def regressor():
    return kbt.BridgeTowerTextRegressor(
        shallow(),
        kbt.BridgeTowerTextRegressorPreprocessor(tokenizer(24)),
        dropout=0.0,
    )


def dense(model):
    """A layer of the text tower that every verb here runs."""
    block = model.backbone.text_encoder.transformer_layers[0]
    return block._feedforward_intermediate_dense


def assign(model, folder):
    for weight in model.backbone.text_encoder.weights:
        if "gamma" in weight.path:
            weight.assign(array(weight) * 1.5)


def activation(model, folder):
    dense(model).activation = keras.activations.sigmoid


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
    dense(model).quantize("int8")


CHANGES = (assign, activation, loaded_lora, quantized)


def rows(found):
    """Results of a verb as one array."""
    return np.concatenate([np.ravel(x) for x in found]).astype("float64")


def rate(model):
    return model.rate(TEXTS)


def predict(model):
    return model.predict({"text": TEXTS}, verbose=0)


def evaluate(model):
    return model.evaluate({"text": TEXTS}, np.ones(2), verbose=0)


@pytest.fixture(scope="module")
def changing():
    """A model that each test changes further."""
    return fast(randomise(regressor()), jit_compile=MANY_STEPS)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
@slow_on("jax")
def test_every_change_counts(change, changing, tmp_path):
    verbs = (rate, predict)
    before = [rows(verb(changing)) for verb in verbs]
    change(changing, tmp_path)
    # Layer by layer, by nothing that was compiled.
    x = changing.preprocessor({"text": TEXTS})
    eager = array(changing(x, training=False)).ravel()
    for verb, earlier in zip(verbs, before, strict=True):
        found = rows(verb(changing))
        np.testing.assert_allclose(found, eager, rtol=2e-5, atol=1e-6)
        assert np.abs(found - earlier).max() > 1e-4


def test_evaluation_sees_a_change(changing):
    evaluate(changing)
    dense(changing).activation = keras.activations.tanh
    difference = np.array(rate(changing)) - 1
    expected = np.square(difference).mean(), np.abs(difference).mean()
    np.testing.assert_allclose(evaluate(changing), expected, rtol=2e-5)


def test_what_was_replaced_leaves_the_memory(changing):
    """Nothing that was compiled for another verb keeps it."""
    evaluate(changing)
    predict(changing)
    rate(changing)
    optimizer = weakref.ref(changing.optimizer)
    fast(changing, jit_compile=MANY_STEPS)
    rate(changing)
    gc.collect()
    assert optimizer() is None


VERBS = {
    "embed": (lambda: contrastive("two_way"), lambda m: m.embed(texts=TEXTS)),
    "rank": (
        lambda: retrieval(**one_layer_each()),
        lambda m: m.rank(IMAGES, TEXTS, batch_size=4, verbose=0),
    ),
}
# Three models are compiled for it, on JAX slowly.
RANK = pytest.param("rank", marks=[pytest.mark.slow] if MANY_STEPS else [])


@pytest.mark.parametrize("name", ["embed", RANK])
@slow_on("jax")
def test_every_verb_sees_a_change(name, tmp_path):
    make, verb = VERBS[name]
    model = randomise(make())
    before = rows(verb(model))
    activation(model, tmp_path)
    found = rows(verb(model))
    model.compile(run_eagerly=True)
    np.testing.assert_allclose(found, rows(verb(model)), rtol=1e-4, atol=1e-5)
    assert np.abs(found - before).max() > 1e-4
