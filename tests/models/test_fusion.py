"""Cross-modal encoders, and bridges and managers against their formulas."""

import json

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import difference
from builders import eager
from builders import features
from builders import moved
from builders import one_layer_each
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import retrieval
from builders import vqa
from drawn_photos import draw
from formulas import attend
from formulas import dense
from formulas import gelu
from formulas import norm
from formulas import softmax
from formulas import weights_by_path
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.analysis import attention_map
from keras_bridgetower.analysis import relevance
from keras_bridgetower.models import bridges
from keras_bridgetower.models import managers
from keras_bridgetower.models.attention import BridgeTowerAttention
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.cross_modal import CROSS_ENCODERS
from keras_bridgetower.models.cross_modal import MergedAttention
from keras_bridgetower.models.towers import resolve_taps
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.tasks.identity import model_checksum

pytestmark = LONG_ELSEWHERE

WIDTH, HEADS, LAYERS = 16, 2, 3
# Of bridges and managers alone.
D = 8


def states(count=LAYERS, width=WIDTH):
    rng = np.random.default_rng(1)
    text = rng.normal(size=(count, 2, 5, width)).astype("float32")
    image = rng.normal(size=(count, 2, 10, width)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")
    return list(text), list(image), mask


def fusion(**kwargs):
    layer = kbt.CrossModalEncoder(WIDTH, HEADS, LAYERS, **kwargs)
    tapped = sum(tap is not None for tap in layer.taps)
    layer(*states(tapped))
    return randomise(layer), states(tapped)


@pytest.mark.parametrize(
    "cross, bridge",
    [
        ("co_attention", "cross_attention"),
        ("merged_attention", "adaptive_manager"),
        ("co_attention", None),
    ],
)
def test_fewer_outputs_are_the_same_from_fewer_tokens(
    cross, bridge, monkeypatch
):
    layer, inputs = fusion(bridge=bridge, cross_encoder=cross)
    queries = []
    step = CROSS_ENCODERS[cross]
    call = step.call

    def spy(self, text_query, image_query, *args, **kwargs):
        sides = text_query, image_query
        queries.append([None if q is None else q.shape[1] for q in sides])
        return call(self, text_query, image_query, *args, **kwargs)

    monkeypatch.setattr(step, "call", spy)
    everything = layer(*inputs)
    for outputs, last in (
        (("pooled",), [1, 1]),
        (("text",), [5, None]),
        (("image",), [None, 10]),
        (("text", "pooled"), [5, 1]),
    ):
        queries.clear()
        fewer = layer(*inputs, outputs=outputs)
        assert queries == [[5, 10], [5, 10], last]
        assert tuple(fewer) == outputs
        for name in outputs:
            assert difference(fewer[name], everything[name]) <= 1e-5


@pytest.mark.parametrize(
    "cross, bridge, influence",
    [
        ("co_attention", "cross_attention", False),
        ("merged_attention", "add", False),
        ("co_attention", "static_manager", False),
        ("co_attention", "adaptive_manager", True),
    ],
)
def test_only_adaptive_managers_read_padding(cross, bridge, influence):
    layer, (text, image, mask) = fusion(bridge=bridge, cross_encoder=cross)
    assert layer.reads_padding is influence
    changed = [np.where(mask[..., None] == 1, t, 9.0) for t in text]
    changed = [t.astype("float32") for t in changed]
    before, after = layer(text, image, mask), layer(changed, image, mask)
    for name in ("image", "pooled"):
        assert (difference(before[name], after[name]) > 1e-3) is influence
        assert influence or difference(before[name], after[name]) <= 1e-5
    a, b = (array(x["text"])[mask == 1] for x in (before, after))
    assert influence or np.abs(a - b).max() <= 1e-5
    unmasked = layer(changed, image)
    assert difference(before["pooled"], unmasked["pooled"]) > 1e-2


def test_fused_attention_equals_plain_attention():
    rng = np.random.default_rng(0)
    q, kv = rng.normal(size=(2, 4, 16)), rng.normal(size=(2, 7, 16))
    mask = rng.integers(0, 2, (2, 1, 7))
    mask[:, :, 0] = 1
    layer = BridgeTowerAttention(num_heads=2, key_dim=8, dropout=0.5)
    fused = layer(q, kv, attention_mask=mask)
    plain, weights = layer(
        q, kv, attention_mask=mask, return_attention_scores=True
    )
    assert difference(fused, plain) <= 1e-5
    np.testing.assert_allclose(array(weights).sum(-1), 1, atol=1e-5)
    assert (array(weights)[..., mask[1, 0] == 0][1] < 1e-6).all()
    assert difference(fused, layer(q, kv, attention_mask=mask)) == 0
    assert difference(fused, layer(q, kv, attention_mask=mask, training=True))


def test_second_image_has_its_own_type_embedding():
    layer, inputs = fusion()
    first, second = layer(*inputs), layer(*inputs, image_row=2)
    assert difference(first["pooled"], second["pooled"]) > 1e-3
    rows = array(layer.type_embedding).copy()
    rows[2] = rows[1]
    layer.type_embedding.assign(rows)
    assert difference(first, layer(*inputs, image_row=2)) == 0


@pytest.mark.parametrize(
    "taps, bridge, expected",
    [
        (None, "add", (-3, -2, -1)),
        (None, None, (-1, None, None)),
        (np.array([-3, -2, -1]), "gate", (-3, -2, -1)),
        ((-4, -1), "static_manager", (-4, -1)),
        ((None, -2, -1), "add", None),
        ((-2, -2, -1), "add", None),
        ((-2, -1, 0), "add", None),
        ((-2, None, None), None, None),
        ((), "static_manager", None),
        ((-1, -2), "static_manager", None),
        ((-2, None), "static_manager", None),
    ],
)
def test_taps_are_resolved_or_rejected(taps, bridge, expected):
    if expected is None:
        with pytest.raises(ValueError, match="Received: taps="):
            resolve_taps(taps, 3, bridge)
    else:
        # As integers of Python, which a configuration can hold.
        found = json.dumps(resolve_taps(taps, 3, bridge))
        assert found == json.dumps(expected)


def test_only_poolers_are_reset():
    layer, inputs = fusion()
    before = layer(*inputs)
    weights = [array(weight) for weight in layer.weights]
    layer.reset_poolers()
    after = layer(*inputs)
    assert difference(after["text"], before["text"]) == 0
    assert difference(after["pooled"], before["pooled"]) > 1e-3
    for weight, old in zip(layer.weights, weights, strict=True):
        same = np.array_equal(array(weight), old)
        assert same == ("pooler" not in weight.path)


@pytest.mark.parametrize("cross", CROSS_ENCODERS)
def test_attention_dropout_differs_from_dropout(cross):
    def changes_in_training(**rates):
        layer, inputs = fusion(cross_encoder=cross, **rates)
        trained, inferred = (
            array(layer(*inputs, training=training)["text"])
            for training in (True, False)
        )
        return np.abs(trained - inferred).max() > 1e-5

    assert not changes_in_training(dropout=0.0)
    assert changes_in_training(dropout=0.0, attention_dropout=0.5)
    assert changes_in_training(dropout=0.5, attention_dropout=0.0)


@FASTEST
def test_inconsistent_states_are_rejected():
    layer, (text, image, mask) = fusion()
    short = [state[:1] for state in image]
    for wrong in (
        (text, short),
        (text[:-1], image),
        ([*text[:-1], text[-1][:, :1]], image),
        (text, image, mask[:, :1]),
    ):
        with pytest.raises(ValueError, match="`padding_mask` must be .batch"):
            layer(*wrong)


@pytest.mark.parametrize(
    "bridge, taps",
    [("static_manager", None), ("adaptive_manager", (-4, -3, -2, -1))],
)
def test_layers_read_what_the_layer_before_returned(bridge, taps):
    layer, (text, image, mask) = fusion(bridge=bridge, taps=taps, dropout=0.0)
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


@pytest.mark.parametrize("bridge", managers.MANAGERS)
def test_gradients_reach_all_weights(bridge):
    model = backbone(bridge=bridge)
    pooled = keras.Model(model.inputs, model.output["pooled"])
    pooled.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    x, y = features(model), np.ones((3, 32), "float32")
    changed = moved(model, lambda: pooled.train_on_batch(x, y))
    parts = ["scores", "own_score", "temperature", "_layers"]
    parts += ["controller"] * (bridge == "adaptive_manager")
    for part in parts:
        paths = {w.path for w in model.trainable_weights if part in w.path}
        assert paths and paths <= changed


def test_buckets_are_refused():
    cut = preprocessor(buckets=(8, 40))
    kbt.BridgeTowerVQA(backbone(bridge="static_manager"), cut)
    with pytest.raises(ValueError, match="`buckets`.*adaptive.*Received"):
        kbt.BridgeTowerVQA(backbone(bridge="adaptive_manager"), cut)
    with pytest.raises(ValueError, match="`buckets`.*'last'.*Received"):
        kbt.BridgeTowerVQA(backbone(text_summary="last"), cut)


def joined():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(2, 4, WIDTH)).astype("float32")
    image = rng.normal(size=(2, 7, WIDTH)).astype("float32")
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], "int32")
    step = MergedAttention(WIDTH, HEADS, 32, dropout=0.3, name="step")
    step(text, image, text, image, mask)
    return randomise(step), text, image, mask


def test_merged_attention_equals_its_formula():
    step, text, image, mask = joined()
    with capture_attention() as maps:
        found = step(text, image, text, image, mask)
    w = weights_by_path(step)
    x = np.concatenate([text, image], 1).astype("float64")
    mask_of_all = np.concatenate([mask, np.ones(image.shape[:2])], 1)
    attended, weights = attend(w, x, x, mask_of_all, "step_attention/")
    x = norm(w, "attention_norm", x + attended)
    hidden = gelu(dense(w, "intermediate_dense", x))
    x = norm(w, "feedforward_norm", x + dense(w, "output_dense", hidden))
    assert np.abs(array(maps["step_attention"]) - weights).max() <= 1e-5
    assert np.abs(array(found[0]) - x[:, :4]).max() <= 1e-4
    assert np.abs(array(found[1]) - x[:, 4:]).max() <= 1e-4
    fused = step(text, image, text, image, mask)
    assert difference(found[0], fused[0]) <= 1e-5


@pytest.mark.parametrize("queries", [(4, 0), (1, 1), (0, 7)])
def test_maps_contain_the_computed_rows(queries):
    step, text, image, mask = joined()
    t, p = queries
    with capture_attention() as everything:
        step(text, image, text, image, mask)
    with capture_attention() as maps:
        some = text[:, :t] if t else None, image[:, :p] if p else None
        step(*some, text, image, mask)
    (whole,) = step.branches(everything, (4, 7))
    (part,) = step.branches(maps, (4, 7), queries)
    rows = [*range(t), *range(4, 4 + p)]
    others = [i for i in range(11) if i not in rows]
    assert np.abs(part[..., rows, :] - whole[..., rows, :]).max() <= 1e-6
    assert not part[..., others, :].any()


def test_blocks_are_normalized_within_a_modality():
    model = randomise(backbone(cross_encoder="merged_attention"))
    inputs = features()
    with capture_attention() as captured:
        model(inputs)
    joint = array(captured["layer_1_attention"])
    maps = model.attention_maps(inputs)
    log = np.log(joint[:, :, :6, 6:])
    expected = np.exp(log - log.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    assert np.abs(maps["text_cross"][1] - expected).max() <= 1e-5


PRESET = "bridgetower_tiny_easy_retrieval"
TEXT = "a red circle"


@FASTEST
def test_a_picture_of_equal_tokens_has_the_same_outputs():
    """Attention to equal keys gives their value, however many there are."""
    whole, merged = backbone(), backbone(image_tokens=3)
    merged.set_weights(whole.get_weights())
    inputs = features()
    images = [
        keras.ops.repeat(x[:, :1], x.shape[1], axis=1)
        for x in whole.image_tower(inputs["images"])
    ]
    texts = whole.text_tower({k: inputs[k] for k in whole.text_tower.input})
    found = [
        model.fusion(texts, images, inputs["padding_mask"])
        for model in (whole, merged)
    ]
    assert [x["image"].shape[1] for x in found] == [17, 3]
    for name in ("text", "pooled"):
        whole, merged = (keras.ops.convert_to_numpy(x[name]) for x in found)
        np.testing.assert_allclose(merged, whole, atol=1e-5)


@FASTEST
def test_all_verbs_read_the_merged_tokens(tmp_path):
    whole = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    merged = kbt.BridgeTowerRetrieval.from_preset(PRESET, image_tokens=20)
    pictures = list(
        np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), "uint8")
    )
    found = merged.score(pictures, TEXT)
    assert np.abs(found - whole.score(pictures, TEXT)).max() > 1e-3
    states = merged.image_states(pictures)
    np.testing.assert_allclose(
        merged.score_states(states, TEXT), found, atol=1e-4
    )
    assert model_checksum(merged) != model_checksum(whole)
    # Scores of one are not taken for those of the other.
    ranked = merged.rank(pictures, [TEXT, "a dot"], cache_dir=tmp_path)
    np.testing.assert_allclose(ranked[:, 0], found, atol=1e-4)
    with pytest.raises(ValueError, match="differs in .*'weights'"):
        whole.rank(pictures, [TEXT, "a dot"], cache_dir=tmp_path)


@FASTEST
def test_an_index_of_merged_tokens_is_opened_again(tmp_path):
    pytest.importorskip("lancedb", reason="the extra `search`")
    preset = "bridgetower_tiny_easy_pretrain"
    models = kbt.search.SearchModels.from_preset(preset, image_tokens=20)
    search = kbt.search.PictureSearch(tmp_path / "index", models)
    search.index(draw(tmp_path / "photos"), states="int8")
    found = search.query(TEXT, rerank=4)
    search = kbt.search.PictureSearch(tmp_path / "index")
    assert search.query(TEXT, rerank=4) == found
    assert search.models.retrieval.backbone.image_tokens == 20


@FASTEST
def test_they_are_fewer_than_those_of_the_new_size(tmp_path):
    open_preset = kbt.BridgeTowerRetrieval.from_preset
    task = open_preset(PRESET, image_size=128, image_tokens=100)
    assert task.backbone.image_tokens == 100
    saved = str(tmp_path / "preset")
    task.save_to_preset(saved)
    assert open_preset(saved).backbone.image_tokens == 100
    again = open_preset(saved, image_size=64, image_tokens=9)
    assert again.backbone.image_tokens == 9
    with pytest.raises(ValueError, match="from 2 to below .* 65"):
        open_preset(PRESET, image_size=64, image_tokens=100)


@FASTEST
def test_what_is_merged_is_trained():
    task, (x, y) = eager(vqa(**one_layer_each(), image_tokens=3)), raw()
    kernel = task.backbone.fusion.image_projections[0].kernel
    assert kernel.path in moved(task, lambda: task.fit(x, y, verbose=0))


@FASTEST
def test_what_needs_all_patches_refuses(tmp_path):
    # As many as a square has patches, beside the first token.
    task = kbt.BridgeTowerRetrieval.from_preset(PRESET, image_tokens=17)
    picture = np.zeros((64, 64, 3), "uint8")
    for map_of in (attention_map, relevance):
        with pytest.raises(ValueError, match="image_tokens=17"):
            map_of(task, picture, TEXT)
    with pytest.raises(ConversionError, match="transformers"):
        retrieval(image_tokens=3).export_to_transformers(tmp_path / "folder")
    for wrong in (1, 65):
        with pytest.raises(ValueError, match="image_tokens"):
            kbt.BridgeTowerRetrieval.from_preset(PRESET, image_tokens=wrong)
    with pytest.raises(ValueError, match="does not run the fusion"):
        kbt.BridgeTowerImageClassifier.from_preset(
            PRESET, labels=["a", "b"], image_tokens=9, random_heads=True
        )
    with pytest.raises(ValueError, match="`image_tokens` must be an integer"):
        backbone(image_tokens=2.5)


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
    "cross_attention": lambda *args: attend(*args)[0],
    "cross_attention_ffn": lambda w, x, y, m: mlp(w, attend(w, x, y, m)[0]),
    "add_linear": lambda w, x, y, m: x + y + dense(w, "linear", both(x, y)),
    "scaled_add": lambda w, x, y, m: x + w["scale"] * y,
    "interpolate_scalar": lambda w, x, y, m: mixed(w["beta"], x, y),
}


def streams():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, 5, D)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")
    return x, y, mask


@pytest.mark.parametrize("name", bridges.BRIDGES)
def test_bridges_equal_their_formulas(name):
    x, y, mask = streams()
    layer = bridges.get(name, D, HEADS)
    layer(x, y, mask)
    weights = weights_by_path(randomise(layer, 0.5), "attention/")
    merged = FORMULAS[name](weights, x, y, mask)
    expected = norm(weights, "layer_norm", merged)
    assert difference(layer(x, y, mask), expected) <= 2e-5


@pytest.mark.parametrize(
    "name, share",
    [
        *(("add_linear", 1), ("scaled_add", 1)),
        *(("interpolate", 0.5), ("interpolate_scalar", 0.5)),
    ],
)
def test_initial_values_of_bridges(name, share):
    x, y, _ = streams()
    layer = bridges.get(name, D)
    expected = norm({"x/gamma": 1.0, "x/beta": 0.0}, "x", share * (x + y))
    assert difference(layer(x, y), expected) <= 1e-5


STATES = 3
CLASSES = {"first_manager": managers.FirstManager, **managers.MANAGERS}


def inputs():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(STATES, 2, 5, D)).astype("float32")
    own = rng.normal(size=(2, 5, D)).astype("float32")
    other = rng.normal(size=(2, 7, D)).astype("float32")
    return list(states), own, other


def formula(name, w, states, own, other):
    """The output in float64, from `manager.md`'s formulas."""
    # Scores (N, batch or 1, tokens or 1, D or 1).
    added = 0
    if name == "adaptive_manager":
        c, q = norm(w, "own_norm", own), norm(w, "other_norm", other)
        logits = dense(w, "query", c) @ dense(w, "key", q).swapaxes(1, 2)
        attended = softmax(logits / np.sqrt(D)) @ q
        scores = dense(w, "controller", both(attended, c))
        scores = np.moveaxis(scores, -1, 0)[..., None]
        added = w["own_score"] * c
    else:
        scores = w["scores"][:, None, None]
        if name == "static_manager":
            added = w["own_score"] * norm(w, "own_norm", own)
    weights = softmax(scores / w["temperature"], 0)
    states = [norm(w, f"norm_{i}", x) for i, x in enumerate(states)]
    return sum(weights * np.stack(states)) + added


@pytest.mark.parametrize("name", CLASSES)
def test_managers_equal_their_formulas(name):
    layer = CLASSES[name](D, STATES)
    layer(*inputs())
    values = weights_by_path(layer)
    if name != "adaptive_manager":
        np.testing.assert_allclose(values["scores"], 1 / STATES)
    if name != "first_manager":
        assert (values["own_score"] == 1).all()
    assert values["temperature"] == 1
    weights = weights_by_path(randomise(layer))
    expected = formula(name, weights, *inputs())
    assert difference(layer(*inputs()), expected) <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_noise_is_drawn_anew_in_training_only(name):
    layer = CLASSES[name](D, STATES)
    layer(*inputs())
    randomise(layer)
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
    for index, each in enumerate(layer.norms):
        # The output is the sum of two weights minus that of the others.
        each.beta.assign(ops.full((64,), 1.0 if index < 2 else -1.0))
    mixed = array(layer(states, training=True)).ravel()
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=1 / 4, size=(4, 100_000))
    weights = softmax(noise, 0)
    expected = (weights[:2] - weights[2:]).sum(0)
    assert mixed.std() == pytest.approx(expected.std(), rel=0.05)
    assert abs(mixed.mean()) < 0.02
