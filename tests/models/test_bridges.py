"""Bridges and managers against their formulas in NumPy."""

import json
import math

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import difference
from builders import features
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import retrieval
from builders import vqa
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower import analysis
from keras_bridgetower.models import bridges
from keras_bridgetower.models import managers
from keras_bridgetower.models.attention import capture_attention

pytestmark = LONG_ELSEWHERE

WIDTH, HEADS = 8, 2


def layer_norm(x, epsilon=1e-5):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(w, x, y, mask):
    q, k, v = (
        np.einsum("btd,dhe->bhte", z, w[f"{part}/kernel"])
        + w[f"{part}/bias"][None, :, None]
        for part, z in (("query", x), ("key", y), ("value", y))
    )
    scores = np.einsum("bhte,bhse->bhts", q, k) / math.sqrt(WIDTH // HEADS)
    scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bhse->bthe", weights, v)
    out = np.einsum("bthe,hed->btd", mixed, w["attention_output/kernel"])
    return out + w["attention_output/bias"]


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def mlp(w, x):
    return dense(w, "output", gelu(dense(w, "hidden", x)))


def both(x, y):
    return np.concatenate([x, y], -1)


def gate(w, x):
    return 1 / (1 + np.exp(-dense(w, "gate", x)))


def mixed(alpha, x, y):
    return alpha * x + (1 - alpha) * y


FORMULAS = {
    "add": lambda w, x, y, m: x + y,
    "multiply": lambda w, x, y, m: x * y,
    "interpolate": lambda w, x, y, m: mixed(w["alpha"], x, y),
    "gate": lambda w, x, y, m: mixed(gate(w, both(x, y)), x, y),
    "linear": lambda w, x, y, m: dense(w, "linear", both(x, y)),
    "mlp": lambda w, x, y, m: mlp(w, both(x, y)),
    "cross_attention": attend,
    "cross_attention_ffn": lambda w, x, y, m: mlp(w, attend(w, x, y, m)),
    "add_linear": lambda w, x, y, m: x + y + dense(w, "linear", both(x, y)),
    "scaled_add": lambda w, x, y, m: x + w["scale"] * y,
    "interpolate_scalar": lambda w, x, y, m: mixed(w["beta"], x, y),
}


def streams():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, 5, WIDTH)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")
    return x, y, mask


@pytest.mark.parametrize("name", bridges.BRIDGES)
def test_bridges_equal_their_formulas(name):
    x, y, mask = streams()
    layer = bridges.get(name, WIDTH, HEADS)
    layer(x, y, mask)
    for weight in layer.weights:
        if "layer_norm" not in weight.path:
            rng = np.random.default_rng(len(weight.path))
            noise = rng.normal(size=weight.shape, scale=0.5)
            weight.assign(array(weight) + noise)
    weights = {}
    for weight in layer.weights:
        path = weight.path.removeprefix(f"{layer.name}/")
        values = array(weight).astype("float64")
        weights[path.removeprefix("attention/")] = values
    expected = layer_norm(FORMULAS[name](weights, x, y, mask))
    assert difference(layer(x, y, mask), expected) <= 2e-5


@pytest.mark.parametrize(
    "name, same_as",
    [
        ("add_linear", lambda x, y: x + y),
        ("scaled_add", lambda x, y: x + y),
        ("interpolate", lambda x, y: (x + y) / 2),
        ("interpolate_scalar", lambda x, y: (x + y) / 2),
    ],
)
def test_initial_values_of_bridges(name, same_as):
    x, y, mask = streams()
    layer = bridges.get(name, WIDTH)
    assert difference(layer(x, y), layer_norm(same_as(x, y))) <= 1e-5


def test_custom_bridge():
    @keras.saving.register_keras_serializable("tests")
    class MaxBridge(bridges.BridgeLayer):
        def merge(self, x, y, mask=None):
            return keras.ops.maximum(x, y)

    assert bridges.serialize(MaxBridge) == "tests>MaxBridge"
    x, y, mask = streams()
    for identifier in (MaxBridge, "tests>MaxBridge"):
        layer = bridges.get(identifier, WIDTH)
        expected = layer_norm(np.maximum(x, y))
        assert difference(layer(x, y), expected) <= 1e-5


STATES = 3
CLASSES = {"first_manager": managers.FirstManager, **managers.MANAGERS}


def inputs():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(STATES, 2, 5, WIDTH)).astype("float32")
    own = rng.normal(size=(2, 5, WIDTH)).astype("float32")
    other = rng.normal(size=(2, 7, WIDTH)).astype("float32")
    return list(states), own, other


def manager(name):
    layer = CLASSES[name](WIDTH, STATES)
    layer(*inputs())
    return randomise(layer)


def softmax(x, axis):
    x = np.exp(x - x.max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def formula(name, w, states, own, other):
    """The output in float64, from `manager.md`'s formulas."""

    def norm(part, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{part}/gamma"] + w[f"{part}/beta"]

    def dense(part, x):
        return x @ w[f"{part}/kernel"] + w[f"{part}/bias"]

    # Scores (N, batch or 1, tokens or 1, D or 1).
    added = 0
    if name == "adaptive_manager":
        c, q = norm("own_norm", own), norm("other_norm", other)
        logits = np.einsum("btd,bsd->bts", dense("query", c), dense("key", q))
        attended = softmax(logits / np.sqrt(WIDTH), -1) @ q
        scores = dense("controller", np.concatenate([attended, c], -1))
        scores = np.moveaxis(scores, -1, 0)[..., None]
        added = w["own_score"] * c
    else:
        scores = w["scores"][:, None, None]
        if name == "static_manager":
            added = w["own_score"] * norm("own_norm", own)
    weights = softmax(scores / w["temperature"], 0)
    mixed = sum(weights[i] * norm(f"norm_{i}", x) for i, x in enumerate(states))
    return mixed + added


@pytest.mark.parametrize("name", CLASSES)
def test_managers_equal_their_formulas(name):
    layer = manager(name)
    weights = {
        weight.path.partition("/")[2]: array(weight).astype("float64")
        for weight in layer.weights
    }
    states, own, other = inputs()
    expected = formula(
        name, weights, *(np.asarray(x, "float64") for x in inputs())
    )
    assert difference(layer(states, own, other), expected) <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_noise_is_drawn_anew_in_training_only(name):
    layer = manager(name)
    still = array(layer(*inputs()))
    assert difference(layer(*inputs(), training=False), still) == 0
    first, second = (array(layer(*inputs(), training=True)) for _ in range(2))
    assert difference(first, still) > 1e-3
    assert difference(first, second) > 1e-3


def test_noise_has_the_standard_deviation_of_the_authors():
    layer = managers.FirstManager(64, 4)
    states = [np.zeros((2, 50, 64), "float32")] * 4
    layer(states)
    layer.scores.assign(ops.zeros((4, 64)))
    for index, norm in enumerate(layer.norms):
        # The output is the sum of two weights minus that of the others.
        norm.beta.assign(ops.full((64,), 1.0 if index < 2 else -1.0))
    mixed = array(layer(states, training=True)).ravel()
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=1 / 4, size=(4, 100_000))
    weights = softmax(noise, 0)
    expected = (weights[:2] - weights[2:]).sum(0)
    assert mixed.std() == pytest.approx(expected.std(), rel=0.05)
    assert abs(mixed.mean()) < 0.02


@pytest.mark.parametrize("name", CLASSES)
def test_managers_are_saved_alone(name, tmp_path):
    layer = manager(name)
    states, own, other = inputs()
    given = [[keras.Input(x.shape[1:]) for x in states]]
    given += [keras.Input(x.shape[1:]) for x in (own, other)]
    model = keras.Model(given, layer(*given))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = array(layer(states, own, other))
    assert difference(loaded([states, own, other]), expected) == 0
    spec = json.loads(json.dumps(keras.layers.serialize(layer)))
    assert spec["registered_name"].startswith("keras_bridgetower>")
    again = keras.layers.deserialize(spec)
    again(states, own, other)
    again.set_weights(layer.get_weights())
    assert difference(again(states, own, other), expected) == 0


def test_initial_values():
    layer = managers.StaticManager(WIDTH, STATES)
    layer(*inputs())
    values = {w.path.partition("/")[2]: array(w) for w in layer.weights}
    assert (values["scores"] == np.float32(1 / STATES)).all()
    assert (values["own_score"] == 1).all() and values["temperature"] == 1


def fusion(bridge, **kwargs):
    layer = kbt.CrossModalEncoder(8, 2, 3, bridge=bridge, dropout=0.0, **kwargs)
    rng = np.random.default_rng(0)
    count = len(layer.taps)
    text, image = (
        list(rng.normal(size=(count, 2, tokens, 8)).astype("float32"))
        for tokens in (5, 7)
    )
    mask = np.array([[1] * 5, [1, 1, 1, 0, 0]], "int32")
    layer(text, image, mask)
    return randomise(layer), (text, image, mask)


@pytest.mark.parametrize("bridge", managers.MANAGERS)
@pytest.mark.parametrize("taps", [None, (-4, -1), (-4, -3, -2, -1)])
def test_layers_read_what_the_layer_before_returned(bridge, taps):
    layer, (text, image, mask) = fusion(bridge, taps=taps)
    assert layer.text_entry is None and len(layer.text_bridges) == 3
    assert type(layer.image_bridges[0]) is managers.FirstManager
    assert type(layer.image_bridges[1]) is managers.MANAGERS[bridge]
    rows = array(layer.type_embedding), layer.text_layer_embedding
    states = [
        array(layer.text_projections[0](x)) + rows[0][0] + array(rows[1])[i]
        for i, x in enumerate(text)
    ]
    projected = layer.project_text(text)
    assert difference(projected, states) <= 1e-5
    pictures = layer.project_image(image)
    x, y = None, None
    for step, own, other in zip(
        layer.steps, layer.text_bridges, layer.image_bridges, strict=True
    ):
        x, y = own(projected, x, y), other(pictures, y, x)
        x, y = step(x, y, x, y, mask)
    out = layer(text, image, mask)
    assert difference(out["text"], x) <= 1e-5
    assert difference(out["image"], y) <= 1e-5


def test_only_adaptive_managers_read_padding():
    for bridge, influence in (
        ("static_manager", False),
        ("adaptive_manager", True),
    ):
        layer, (text, image, mask) = fusion(bridge)
        changed = [
            np.where(mask[..., None] == 1, x, 3.0).astype("float32")
            for x in text
        ]
        before, after = layer(text, image, mask), layer(changed, image, mask)
        assert (difference(before["image"], after["image"]) > 1e-3) == influence


@pytest.mark.parametrize("bridge", managers.MANAGERS)
def test_gradients_reach_all_weights(bridge):
    model = backbone(bridge=bridge)
    weights = {w.path: array(w) for w in model.trainable_weights}
    inputs = keras.Model(model.inputs, model.output["pooled"])
    inputs.compile(
        keras.optimizers.SGD(1.0),
        "mse",
        run_eagerly=keras.config.backend() != "jax",
    )
    x = features(model)
    inputs.train_on_batch(x, np.ones((3, 32), "float32"))
    parts = ("scores", "own_score", "temperature", "controller", "_layers")
    seen = set()
    for weight in model.trainable_weights:
        found = [part for part in parts if part in weight.path]
        if found:
            assert difference(weight, weights[weight.path]) > 0, weight.path
            seen |= set(found)
    static = {"scores", "own_score", "temperature", "_layers"}
    assert seen == static | (
        {"controller"} if bridge == "adaptive_manager" else set()
    )


@pytest.mark.parametrize("taps", [(), (-1, -2), (-2, None)])
def test_wrong_taps_are_rejected(taps):
    with pytest.raises(ValueError, match="With managers `taps`.*Received"):
        kbt.CrossModalEncoder(8, 2, 3, bridge="static_manager", taps=taps)


def test_buckets_are_refused():
    cut = preprocessor(buckets=(8, 40))
    kbt.BridgeTowerVQA(backbone(bridge="static_manager"), cut)
    with pytest.raises(ValueError, match="`buckets`.*adaptive.*Received"):
        kbt.BridgeTowerVQA(backbone(bridge="adaptive_manager"), cut)
    with pytest.raises(ValueError, match="`buckets`.*'last'.*Received"):
        kbt.BridgeTowerVQA(backbone(text_summary="last"), cut)


@FASTEST
def test_saved_models_are_the_same(tmp_path):
    bridge = "adaptive_manager"
    task = vqa(bridge=bridge)
    randomise(task.backbone)
    task.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerVQA.from_preset(tmp_path / "preset")
    assert copy.backbone.fusion.bridge == bridge
    assert_same_weights(task, copy)
    resized = task.backbone.with_image_size(48)
    assert resized.fusion.text_bridges[0].scores.shape == (2, 16)


@FASTEST
def test_ranking_equals_the_forward_pass():
    task = retrieval(bridge="adaptive_manager")
    randomise(task.backbone)
    x, _ = raw(3)
    ranked = task.rank(x["images"], x["text"], verbose=0)
    pairs = task.score(
        [*x["images"]] * 3, [text for text in x["text"] for _ in range(3)]
    )
    assert difference(ranked.T.ravel(), pairs) <= 1e-5


@FASTEST
def test_attention_maps():
    task = vqa(bridge="adaptive_manager")
    x, _ = raw(1)
    maps = task.backbone.attention_maps(task.preprocessor(x))
    assert len(maps["text_cross"]) == 2
    for show in (analysis.attention_rollout, analysis.relevance):
        seen = show(task, x["images"][0], x["text"][0])
        assert seen.whole.sum() == pytest.approx(1, abs=1e-5)
    with capture_attention() as captured:
        task.backbone.fuse(task.preprocessor(x))
    assert captured["image_manager_1"].shape == (1, 1, 17, 40)
