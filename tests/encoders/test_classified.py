"""Feature pyramids in backbones, and a classifier as the highest state."""

import json
import shutil
import types

import copies
import keras
import numpy as np
import pytest
import torch
import transformers
import whole_folders
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import clip
from builders import difference
from builders import eager
from builders import features
from builders import moved
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import resnet
from builders import roberta
from builders import run
from builders import run_once
from builders import some_everywhere
from peers import pixels

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.distribution.strategy import check_batch_norms
from keras_bridgetower.encoders.classified import ClassifiedEncoder
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import PresetError

CLASSES, SIDE = 5, whole_folders.SIDE
# Of a backbone with maps, their places and class probabilities.
CHOICES = {
    "num_layers": 3,
    "taps": (-2, -1, None),
    "image_taps": (-3, -1, None),
    "image_positions": "coordinates",
    "projections": "per_layer",
}


def classified():
    return ClassifiedEncoder(resnet(), CLASSES)


@pytest.mark.parametrize(
    "kind", some_everywhere(whole_folders.PYRAMIDS, "resnet")
)
def test_classes_are_those_of_the_peer(kind, tmp_path):
    whole_folders.write_image(tmp_path, f"{kind} classes")
    cls = transformers.AutoModelForImageClassification
    model = cls.from_pretrained(tmp_path).eval()
    # The files of ResNet tell no size.
    encoder = unimodal.image_encoder(
        tmp_path, image_size=SIDE, with_classifier=True
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, SIDE, SIDE, 3)).astype("float32")
    with torch.no_grad():
        wanted = model(pixels(images)).logits
        top = model.base_model(pixels(images)).last_hidden_state
        if top.ndim == 4:
            top = top.flatten(2).transpose(1, 2)
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        each = linear[-1](top).softmax(-1)
    logits = keras.Model(encoder.input, encoder.get_layer("classes").output)
    logits = array(run_once(logits, images)).mean((1, 2))
    scale = float(wanted.abs().max())
    assert scale > 0.1
    assert difference(logits, wanted.numpy()) <= 1e-5 * max(scale, 1)
    found = array(run_once(encoder, images))
    assert difference(found.reshape(each.shape), each.numpy()) <= 1e-5
    # Below them are the states of the encoder alone.
    plain = unimodal.image_encoder(tmp_path, image_size=SIDE)
    both = [
        run_once(kbt.Tower(model, taps), images)
        for model, taps in ((encoder, (-3, -2, -1)), (plain, (-2, -1)))
    ]
    assert difference(both[0][0], both[1][0]) == 0
    assert difference(both[0][1], both[1][1]) == 0


WEIGHT, BIAS = "classifier.1.weight", "classifier.1.bias"


@FASTEST
@pytest.mark.parametrize(
    "changed, found",
    [
        ({}, "weight: missing"),
        ({WEIGHT: torch.ones(2, 7)}, r"weight: \(2, 7\)"),
        ({WEIGHT: torch.ones(())}, r"weight: \(\)"),
        ({BIAS: torch.ones(2, 1)}, r"bias: \(2, 1\)"),
    ],
)
def test_files_without_a_classifier_give_one_error(changed, found, tmp_path):
    kind = "resnet classes" if changed else "resnet"
    whole_folders.write_image(tmp_path, kind)
    copies.edit_tensors(tmp_path, lambda state: state.update(changed))
    with pytest.raises(ConversionError, match=f"needs a `transfo.*{found}"):
        unimodal.image_encoder(tmp_path, with_classifier=True)


@FASTEST
def test_other_sources_have_none(tmp_path):
    needs = "`with_classifier=True` needs a `transformers` folder or a state"
    # Before anything is downloaded.
    with pytest.raises(ConversionError, match=needs):
        unimodal.image_encoder("resnet_18_imagenet", with_classifier=True)
    whole_folders.write_image(tmp_path / "vit", "vit")
    with pytest.raises(ConversionError, match=needs):
        unimodal.image_encoder(tmp_path / "vit", with_classifier=True)
    for encoder in (clip(), roberta()):
        with pytest.raises(ValueError, match="`encoder` must have maps"):
            ClassifiedEncoder(encoder, CLASSES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A backbone and its preset; no test changes them."""
    made = randomise(backbone(classified(), **CHOICES), scale=0.1)
    folder = tmp_path_factory.mktemp("presets") / "preset"
    made.save_to_preset(folder)
    return made, folder


def opened(saved, **values):
    return kbt.BridgeTowerBackbone.from_preset(saved[1], **values)


@LONG_ELSEWHERE
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_backbones_have_other_sizes_and_dtypes(saved):
    made, x = saved[0], features(side=48)
    narrow = opened(saved, image_size=48, dtype="mixed_bfloat16")
    assert_same_weights(made, narrow)
    assert narrow.image_encoder.encoder.image_shape == (48, 48, 3)
    layers = narrow.image_tower.layers
    types = {layer.compute_dtype for layer in layers if layer.weights}
    assert types == {"bfloat16"}
    found, expected = (
        run(model, x) for model in (narrow, made.with_image_size(48))
    )
    assert found["image"].shape == (3, 1 + 6 * 6, 16)
    assert difference(found["pooled"], expected["pooled"]) <= 0.1
    copy, x = opened(saved), features()
    assert copy.image_tower.taps == CHOICES["image_taps"]
    found, expected = (run(model, x)["pooled"] for model in (copy, made))
    assert difference(found, expected) <= 1e-6
    copy.quantize("int8")
    assert copy.image_encoder.get_layer("classes").quantization_mode == "int8"
    kernels = [w for w in copy.image_encoder.weights if len(w.shape) == 4]
    assert {w.dtype for w in kernels} == {"float32"}


@FASTEST
def test_configurations_hold_no_counters(saved):
    file = json.loads((saved[1] / "config.json").read_text())
    spec = file["config"]["image_encoder"]
    for part in (spec, spec["config"]["encoder"]):
        assert part["config"].keys() & {"name", "trainable"} == set()


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {}}


def with_code(inner):
    inner["encoder"] = {**LAMBDA, "registered_name": None}


def of_huge_images(inner):
    inner["encoder"]["config"]["image_shape"] = [10**9, 10**9, 3]


@FASTEST
@pytest.mark.filterwarnings("ignore:The preset .* has no manifest")
@pytest.mark.parametrize(
    "change, words",
    [(with_code, "must be a class"), (of_huge_images, "at most")],
)
def test_other_encoders_are_refused(change, words, saved, tmp_path):
    folder = shutil.copytree(saved[1], tmp_path / "preset")
    (folder / "manifest.json").unlink()
    copies.edit(
        folder / "config.json",
        lambda file: change(file["config"]["image_encoder"]["config"]),
    )
    with pytest.raises(PresetError, match=rf"config\.json.*{words}"):
        kbt.BridgeTowerBackbone.from_preset(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of an encoder of three blocks and top layers."""
    return whole_folders.write_image(
        tmp_path_factory.mktemp("encoders"), "efficientnet"
    )


def pair(folder, **kwargs):
    values = {"num_layers": 4, "projections": "per_layer"} | kwargs
    encoder = unimodal.image_encoder(folder)
    return backbone(encoder, roberta(layers=4), **values)


@LONG_ELSEWHERE
def test_default_taps_have_several_widths_and_one_grid(folder):
    made = pair(folder)
    states = run(made.image_tower, features()["images"])
    assert [x.shape[1:] for x in states] == [
        (65, width) for width in (8, 16, 24, 640)
    ]
    large = made.with_image_size(48)
    found = run(large, features(large, side=48))
    assert found["image"].shape == (3, 1 + 12 * 12, 16)
    assert_same_weights(made, large)
    # Blocks with attention only: a second run would count statistics twice.
    assert not made.image_tower.blocks
    made.checkpoint_activations()
    with pytest.raises(ValueError, match="must be 'per_layer'"):
        pair(folder, projections="shared")


@LONG_ELSEWHERE
def test_training_moves_statistics_unless_the_tower_is_frozen(folder):
    """Several replicas would each have their own."""
    replicas = types.SimpleNamespace(count=2, device_name="2 replicas")
    task = kbt.BridgeTowerVQA(pair(folder, num_layers=1), preprocessor())
    with pytest.raises(ValueError, match="10 batch norms"):
        check_batch_norms(task, replicas)
    paths = {w.path for w in task.weights if "moving_" in w.path}
    assert len(paths) == 20

    def step():
        eager(task).fit(*raw(), verbose=0)

    assert paths <= moved(task, step)
    task.backbone.image_tower.trainable = False
    check_batch_norms(task, replicas)
    assert not paths & moved(task, step)
