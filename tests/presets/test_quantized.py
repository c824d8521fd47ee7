"""Models that Keras quantized: saved, opened, refused where floats count."""

import copy
import gc
import json
import os
import shutil
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import clip
from builders import difference
from builders import features
from builders import long_but
from builders import randomise
from builders import roberta
from builders import run
from builders import shallow
from builders import slow_on
from every_task import make

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import main
from keras_bridgetower.backend import layer_records
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.errors import PresetError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer .* does not have a `quantize`"
)
# The sum of the numbered names below.
NAMES_OF_LAYERS = 756759716
INT8 = keras.quantizers.Int8QuantizationConfig
INT4 = keras.quantizers.Int4QuantizationConfig
WAYS = {
    "int8": INT8,
    "int8_weights": lambda: INT8(activation_quantizer=None),
    "int4/8": lambda: INT4(block_size=8),
    "int4/-1": lambda: INT4(block_size=None),
}


def quantize(model, way="int8", **kwargs):
    model.quantize(config=WAYS[way](), **kwargs)
    return model


def task():
    return randomise(make("vqa"), scale=0.05)


def outputs(model):
    x = features(model.backbone, seed=1)
    return array(run(model, x))


def same(model, other):
    """The same weights and the same outputs, to the bit."""
    assert_same_weights(model, other)
    np.testing.assert_array_equal(outputs(model), outputs(other))


def reopened(model, folder):
    """A model that was saved as a preset and opened."""
    model.save_to_preset(folder)
    return type(model).from_preset(folder)


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """A task in int8, its preset and that before; no test changes them."""
    model = task()
    root = tmp_path_factory.mktemp("int8")
    model.save_to_preset(root / "whole")
    quantize(model)
    model.save_to_preset(root / "preset")
    return model, root / "preset", root / "whole"


@slow_on("jax")
def test_large_activations_leave_the_others_their_bits():
    """Without integers for them: a weight moves by half a step at most."""
    inside = {}
    for way in ("int8", "int8_weights"):
        layer = task().backbone.fusion.text_pooler
        kernel = array(layer.kernel)
        kernel[0] = 0
        layer.kernel.assign(kernel)
        x = np.random.default_rng(0).normal(size=(5, len(kernel)))
        x[:, 0] = 1000
        expected = array(layer(x.astype("float32")))
        layer.quantize(config=WAYS[way]())
        step = np.abs(kernel).max(axis=0) / 127
        most = np.abs(x[:, 1:]).sum(axis=-1, keepdims=True) * step / 2
        # The slope of `tanh` is one at most.
        moved = np.abs(array(layer(x.astype("float32"))) - expected)
        assert moved.max() > 0
        inside[way] = bool((moved <= most + 1e-5).all())
    assert inside == {"int8": False, "int8_weights": True}


@slow_on("tensorflow", "jax")
@pytest.mark.parametrize("way", long_but(WAYS, "int8"))
def test_each_way_is_saved_opened_and_copied(way, tmp_path):
    model = task()
    expected = outputs(model)
    quantize(model, way)
    opened = reopened(model, tmp_path / "preset")
    same(opened, model)
    assert list(opened.backbone.get_config()["quantized_layers"]) == [way]
    error = np.linalg.norm(outputs(model) - expected)
    steps = 7 if "int4" in way else 127
    assert 0 < error <= 3 / steps * np.linalg.norm(expected)
    if way == "int8":
        model.save(tmp_path / "a.keras")
        same(keras.saving.load_model(tmp_path / "a.keras"), model)
        same(copy.deepcopy(model), model)


def test_layers_have_the_same_numbers_on_every_backend():
    """They name the quantized layers of a preset."""
    numbered = layer_records.numbered_layers(shallow())
    names = [f"{place} {layer.name}" for place, layer in numbered.items()]
    assert len(names) == len(set(names)) > 50
    assert NAMES_OF_LAYERS == zlib.crc32("\n".join(names).encode()), names


@pytest.mark.slow
@FASTEST
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_opened_on_another_backend(int8, backend, tmp_path):
    model, folder, _ = int8
    x = features(model.backbone, seed=1)
    np.savez(tmp_path / "x.npz", **x)
    code = (
        "import sys, numpy as np, keras_bridgetower as kbt;"
        "task = kbt.BridgeTowerVQA.from_preset(sys.argv[1]);"
        "task.preprocessor = None;"
        "found = task.predict(dict(np.load('x.npz')), verbose=0);"
        "np.save('found.npy', found)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | {"KERAS_BACKEND": backend},
        cwd=tmp_path,
        check=True,
    )
    found, expected = np.load(tmp_path / "found.npy"), outputs(model)
    # Activations on the edge between two integers may round apart.
    assert np.abs(found - expected).max() < 0.05 * expected.std()


@FASTEST
def test_another_backbone_and_another_task(int8):
    model, folder, _ = int8
    body = kbt.BridgeTowerBackbone.from_preset(folder)
    assert_same_weights(body, model.backbone)
    made = kbt.BridgeTowerBackbone.from_config(body.get_config())
    made.set_weights(body.get_weights())
    x = features(body)
    assert difference(run(made, x), run(body, x)) == 0
    with pytest.warns(UserWarning, match="Newly initialized"):
        other = kbt.BridgeTowerEntailment.from_preset(folder)
    # A head that the preset lacks is new, so it can be trained.
    assert all(w.dtype == "float32" for w in other.heads.weights)


@FASTEST
def test_only_some_layers_and_other_heads(tmp_path):
    model = randomise(make("pretraining"), scale=0.05)
    frozen = gc.get_freeze_count()
    model.backbone.image_tower.quantize("int8")
    parts = "fusion", "head"
    quantize(
        model,
        "int4/8",
        filters=lambda layer: any(x in str(layer.path) for x in parts),
    )
    assert any(w.dtype == "int8" for w in model.heads.weights)
    # What the process froze stays frozen.
    assert gc.get_freeze_count() >= frozen > 0
    kinds = {w.dtype for w in model.backbone.text_tower.weights}
    assert "int8" not in kinds
    opened = reopened(model, tmp_path / "preset")
    assert_same_weights(opened, model)
    ways = opened.backbone.get_config()["quantized_layers"]
    assert set(ways) == {"int8", "int4/8"}


@FASTEST
def test_a_backbone_made_with_a_map_of_quantized_policies(tmp_path):
    policies, usual = keras.dtype_policies, "bfloat16"
    dtype = policies.DTypePolicyMap(usual)
    for path, mode in ((".*_projection_0", "int8"), (".*/query", "int4/8")):
        dtype[path] = policies.get(f"{mode}_from_{usual}")
    parts = [make(layers=1, dtype=usual) for make in (clip, roberta)]
    body = backbone(*parts, num_layers=1, dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in body.weights:
        if weight.dtype == "int8":
            weight.assign(rng.integers(-9, 9, weight.shape))
    ways = body.get_config()["quantized_layers"]
    assert [len(places) for places in ways.values()] == [2, 4]
    # Keras cannot save a layer whose quantized policy comes from a map.
    copied = kbt.BridgeTowerBackbone.from_config(body.get_config())
    copied.set_weights(body.get_weights())
    copied.save(tmp_path / "a.keras")
    x = features(body)
    for other in (
        copied,
        keras.saving.load_model(tmp_path / "a.keras"),
        reopened(copied, tmp_path / "preset"),
    ):
        assert other.get_config()["quantized_layers"] == ways
        assert difference(run(other, x), run(body, x)) == 0


@FASTEST
def test_half_precision(tmp_path):
    half = {"dtype": "bfloat16"}
    body = backbone(
        clip(layers=1, **half), roberta(layers=1, **half), num_layers=1, **half
    )
    model = quantize(randomise(make("vqa", body), scale=0.05))
    opened = reopened(model, tmp_path / "preset")
    same(opened, model)
    scale = opened.heads["vqa"].output_dense.kernel_scale
    assert scale.dtype == "bfloat16"
    mixed = kbt.BridgeTowerVQA.from_preset(
        tmp_path / "preset", dtype="mixed_bfloat16"
    )
    assert mixed.heads["vqa"].output_dense.kernel_scale.dtype == "float32"
    with pytest.raises(ValueError, match="`dtype` must not be float16"):
        kbt.BridgeTowerVQA.from_preset(tmp_path / "preset", dtype="float16")


@FASTEST
def test_adapters_are_merged(int8, tmp_path):
    model = kbt.BridgeTowerVQA.from_preset(int8[1])
    model.enable_lora(2)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "lora_" in weight.path:
            weight.assign(rng.normal(size=weight.shape, scale=0.5))
    opened = reopened(model, tmp_path / "preset")
    expected = outputs(model)
    error = np.linalg.norm(outputs(opened) - expected)
    assert error <= 3 / 127 * np.linalg.norm(expected)
    change = np.linalg.norm(outputs(int8[0]) - expected)
    assert error < change / 2


@FASTEST
def test_quantizing_searches_for_garbage_once():
    """Not once for each layer, which took minutes for a small model."""
    model = task().backbone.image_tower
    searched = []

    def count(phase, info):
        if phase == "start" and info["generation"] == 2:
            searched.append(len(gc.get_objects()))

    # The tests freeze what they import.
    gc.unfreeze()
    alive = len(gc.get_objects())
    gc.callbacks.append(count)
    try:
        model.quantize("int8")
        assert gc.get_freeze_count() == 0
    finally:
        gc.callbacks.remove(count)
        gc.freeze()
    assert len(searched) > 5
    assert sum(searched) < 2 * alive


@FASTEST
def test_operations_that_need_floats_reject_quantized_models(int8, tmp_path):
    model, folder, _ = int8
    for wrong in (
        lambda: model.backbone.with_image_size(64),
        lambda: kbt.BridgeTowerVQA.from_preset(folder, image_size=64),
        lambda: model.backbone.image_tower.get_config(),
        lambda: model.export_to_transformers(tmp_path / "theirs"),
    ):
        with pytest.raises(ValueError, match="weights that are not quantized"):
            wrong()
    model = task()
    layer = model.backbone.fusion.text_pooler
    layer.quantize("float8")
    with pytest.raises(ValueError, match="int4.*text_pooler.* to float8"):
        model.save_to_preset(tmp_path / "float8")
    other = task()
    narrow = keras.quantizers.AbsMaxQuantizer(value_range=(-7, 7))
    layer = other.backbone.fusion.text_pooler
    layer.quantize(config=INT8(activation_quantizer=narrow))
    with pytest.raises(ValueError, match="Keras' own quantizer"):
        other.save(tmp_path / "a.keras")
    assert not (tmp_path / "float8").exists()


def as_floats(name, x):
    return {"data": x.astype("f4") if x.dtype == "i1" else x}


CHANGES = {
    "another way": lambda ways: {"int3": ["0 Dense"]},
    "another layer": lambda ways: {"int8": [*ways["int8"], "999 Dense"]},
    "no way": lambda ways: {},
}


@FASTEST
@pytest.mark.filterwarnings("ignore:The preset .* has no manifest")
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("kind", [*CHANGES, "floats"])
def test_damaged_presets_are_refused(kind, int8, tmp_path):
    """Floats in a file are never cut to integers."""
    folder = shutil.copytree(int8[1], tmp_path / "damaged")
    (folder / manifest.MANIFEST).unlink()
    if kind == "floats":
        name = weights_file.WEIGHTS
        weights_file.rewrite(int8[1] / name, folder / name, as_floats)
        with pytest.raises(PresetError, match="one array of the right type"):
            kbt.BridgeTowerVQA.from_preset(folder)
        return
    for file in ("config.json", "task.json"):
        whole = (folder / file).read_text()
        values = json.loads(whole)
        owner, key = values["config"], "quantized_layers"
        if file == "task.json":
            owner, key = owner[key], "vqa"
        owner[key] = CHANGES[kind](owner[key])
        (folder / file).write_text(json.dumps(values))
        with pytest.raises(PresetError):
            kbt.BridgeTowerVQA.from_preset(folder)
        (folder / file).write_text(whole)


@FASTEST
def test_quantize_command(int8, tmp_path, capsys):
    _, _, whole = int8
    model = quantize(kbt.BridgeTowerVQA.from_preset(whole), "int8_weights")
    words = ["quantize", str(whole), str(tmp_path / "int8")]
    assert main.main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == "" and found["task"] == "BridgeTowerVQA"
    same(kbt.BridgeTowerVQA.from_preset(tmp_path / "int8"), model)
    assert found["weight_bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "int8").glob("*.h5")
    )
    assert main.main(words) == 1
    assert "must not exist yet" in capsys.readouterr().err
    words = ["quantize", str(tmp_path / "int8"), str(tmp_path / "again")]
    assert main.main(words) == 1
    assert "weights that are not quantized" in capsys.readouterr().err
