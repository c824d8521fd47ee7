"""Dtypes, adapters and quantization, in each of the ten tasks."""

import every_task
import keras
import numpy as np
import pytest
from builders import array
from builders import backbone
from builders import clip
from builders import difference
from builders import features
from builders import long_but
from builders import moved
from builders import randomise
from builders import roberta
from builders import run
from builders import shallow
from builders import slow_on
from every_task import BATCH
from every_task import TASKS
from every_task import only

from keras_bridgetower.backend.keras_private.layers import layers_in

BACKEND = keras.config.backend()

SOME = ("vqa",) if BACKEND == "torch" else ("text_classifier",)
EACH = only(*SOME)
EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10}


def long_elsewhere(test):
    """A test whose long version alone runs on the slower backends."""
    return test if BACKEND == "torch" else pytest.mark.slow(test)


def make(task, dtype=None):
    case = TASKS[task]
    parts = clip(layers=1, dtype=dtype), roberta(layers=1, dtype=dtype)
    model = backbone(*parts, num_layers=1, dtype=dtype)
    made = case.task(model, every_task.preprocessor(task), **case.values)
    return randomise(made, scale=0.05)


def outputs(task, model):
    made = run(model, every_task.features(task, model))
    return [np.asarray(x, "float64") for x in keras.tree.flatten(made)]


def error(found, expected):
    """Largest difference, relative to the size of the outputs."""
    pairs = zip(found, expected, strict=True)
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)


def fit(task, model):
    return model.fit(
        every_task.raw(task), TASKS[task].y, batch_size=BATCH, verbose=0
    )


def dense_in(model):
    layers = layers_in(model)
    return [la for la in layers if isinstance(la, keras.layers.Dense)]


def roundings(model):
    """Layers with weights, each of which rounds what it puts out."""
    layers = layers_in(model)
    return sum(bool(layer.weights) for layer in layers)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("task", EACH)
@slow_on("tensorflow", "jax")
def test_mixed_precision(task, dtype, tmp_path):
    """`dtype="mixed_bfloat16"` and `"mixed_float16"`"""
    half = dtype.removeprefix("mixed_")
    if (BACKEND, half) == ("jax", "float16"):
        pytest.skip("JAX has no float16 on processors")
    whole, model = make(task), make(task, dtype)
    model.set_weights(whole.get_weights())
    expected, found = outputs(task, whole), outputs(task, model)
    # Each layer's error is independent, half of the last bit.
    bound = EPSILON[half] / 2 * np.sqrt(roundings(model))
    assert 0 < error(found, expected) <= bound
    every_task.compiled(model)
    every_task.step(task, model)
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert error(outputs(task, loaded), outputs(task, model)) == 0
    # What scales the losses, and the slots, are those of the next step, too.
    assert type(loaded.optimizer) is type(model.optimizer)
    before = every_task.state(model)
    assert difference(every_task.state(loaded), before) == 0
    for one in (model, loaded):
        every_task.step(task, one)
    after = every_task.state(model)
    assert difference(every_task.state(loaded), after) == 0
    assert difference(before, after) > 0
    changed = moved(model, lambda: fit(task, model))
    left = {w.path for w in model.trainable_weights} - changed
    # No softmax sees what all keys have in common.
    assert {path.rpartition("/key/")[2] for path in left} <= {"bias"}
    assert {w.dtype for w in model.trainable_weights} == {"float32"}


@pytest.mark.parametrize("dtype", long_but(["bfloat16", "float16"], "float16"))
@pytest.mark.parametrize("task", EACH)
@long_elsewhere
def test_half_precision(task, dtype, tmp_path, record_property):
    """`dtype="bfloat16"` and `"float16"`: verbs; training warns or raises"""
    whole, model = make(task), make(task, dtype)
    model.set_weights(whole.get_weights())
    found = outputs(task, model)
    bound = EPSILON[dtype] * np.sqrt(roundings(model))
    assert 0 < error(found, outputs(task, whole)) <= bound
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    with pytest.warns(UserWarning, match=f"{dtype} lose every.*mixed_{dtype}"):
        fit(task, model)
    fit(task, model)
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert error(outputs(task, loaded), outputs(task, model)) == 0
    wrong = {"bfloat16": {"beta_2": 0.999}, "float16": {"epsilon": 1e-8}}
    model.compile(keras.optimizers.AdamW(1e-5, **wrong[dtype]))
    with pytest.raises(ValueError, match=f"`optimizer`.*mixed_{dtype}"):
        fit(task, model)
    record_property("outcome", "refused: use mixed precision")


@pytest.mark.parametrize("task", EACH)
@long_elsewhere
def test_policy_of_one_layer(task, tmp_path):
    """a dtype policy of single layers"""
    model = every_task.build(task)
    for layer in dense_in(model):
        layer.dtype_policy = "mixed_bfloat16"
    found = outputs(task, model)
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert error(outputs(task, loaded), found) == 0
    with pytest.raises(ValueError, match="A preset has one dtype policy"):
        model.save_to_preset(tmp_path / "preset")


LORA = {
    "task": lambda model: model.enable_lora(2),
    "query and key": lambda m: m.backbone.enable_lora(3, ["query", "key"]),
    "each Dense": lambda m: [la.enable_lora(2) for la in dense_in(m.backbone)],
}


# The slots of adapters are of no use to weights that hold them.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("way", long_but(LORA, "task", "query and key"))
@pytest.mark.parametrize("task", EACH)
@long_elsewhere
def test_lora(task, way, tmp_path):
    """LoRA: only adapters and heads move; saved alone, or merged"""
    model = every_task.build(task)
    start = model.get_weights()
    LORA[way](model)
    every_task.compiled(model)
    changed = moved(model, lambda: fit(task, model))
    if way != "each Dense":
        own = {w.path for w in model.heads.weights}
        assert {p for p in changed - own if "lora_kernel" not in p} == set()
    assert any("lora_kernel" in path for path in changed)
    randomise_adapters(model)
    found = outputs(task, model)
    model.save(tmp_path / "a.keras")
    merged = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    assert error(outputs(task, merged), found) <= 1e-6
    if way == "each Dense":
        return
    model.backbone.save_lora_weights(tmp_path / "a.lora.h5")
    other = every_task.build(task)
    other.set_weights(start)
    other.backbone.load_lora_weights(tmp_path / "a.lora.h5")
    adapted, loaded = (
        {w.path: w for w in m.weights if "lora" in w.path}
        for m in (model, other)
    )
    assert difference(loaded, adapted) == 0
    trained = {w.path for w in other.backbone.trainable_weights}
    assert all("lora_kernel" in path for path in trained)


def randomise_adapters(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "lora" in weight.path:
            weight.assign(rng.normal(size=weight.shape, scale=0.2))


@long_elsewhere
def test_adapters_that_do_not_fit(tmp_path):
    path = tmp_path / "a.lora.h5"
    with pytest.raises(ValueError, match="no adapters to save"):
        shallow().save_lora_weights(path)
    model = shallow()
    with pytest.raises(ValueError, match="`target_layer_names` must name"):
        model.enable_lora(2, ["nothing"])
    model.enable_lora(2)
    with pytest.raises(ValueError, match="must be called once.*rank=3"):
        model.enable_lora(3)
    model.save_lora_weights(path)
    for values in ((3,), (2, ["key"])):
        other = shallow()
        other.enable_lora(*values)
        with pytest.raises(ValueError, match="same layers|shape"):
            other.load_lora_weights(path)
    model, other = shallow(), shallow()
    model.fusion.text_projections[0].enable_lora(2, lora_alpha=8)
    model.save_lora_weights(path)
    # Into new adapters, and into those of another factor.
    other.load_lora_weights(path)
    other.fusion.text_projections[0].lora_alpha = 2
    other.load_lora_weights(path)
    assert other.fusion.text_projections[0].lora_alpha == 8


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_tokens(mode):
    """The table of tokens holds integers then, which must be scaled."""
    model = shallow()
    layer = model.text_encoder.token_embedding
    lookup = model.text_tower.get_layer("token_lookup")
    ids = features(model)["token_ids"]
    expected = array(lookup(ids))
    layer.quantize(mode)
    steps = {"int8": 127, "int4": 7}[mode]
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    wrong = np.abs(array(lookup(ids)) - expected)
    assert (wrong <= largest / steps * 0.51 + 1e-7).all()


@slow_on("tensorflow", "jax")
def test_models_of_parts(tmp_path):
    """`keras.Model(backbone.input, ...)` trains and is saved"""
    body = randomise(shallow())
    frozen = body.text_tower, body.fusion.steps[0], body.image_tower.blocks[0]
    for part in frozen:
        part.trainable = False
    x = features(body)
    outputs = keras.layers.Dense(3)(body.output["pooled"])
    model = keras.Model(body.input, outputs)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "mse", run_eagerly=BACKEND != "jax")
    y = np.zeros((3, 3), "float32")
    assert moved(model, lambda: model.fit(x, y, verbose=0))
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert difference(run(loaded, x), run(model, x)) == 0
    trained, again = (
        [weight.trainable for weight in one.weights] for one in (model, loaded)
    )
    assert again == trained
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    assert difference(run(copied, x), run(model, x)) == 0


@slow_on("tensorflow", "jax")
def test_models_that_call_a_task(tmp_path):
    """A task as a layer: texts are of no length there."""
    task = randomise(every_task.make("contrastive"))
    inputs = {
        name: keras.Input(x.shape[1:], dtype=x.dtype, name=name)
        for name, x in task.input.items()
    }
    model = keras.Model(inputs, task(inputs))
    x = features(task)
    assert difference(run(model, x), run(task, x)) == 0
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    assert difference(run(loaded, x), run(model, x)) == 0
