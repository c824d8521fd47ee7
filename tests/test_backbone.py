"""The backbone: parts and whole, saving, sizes, bad input."""

import json

import keras
import numpy as np
import pytest
from builders import IMAGE_ENCODERS
from builders import LONG_ELSEWHERE
from builders import TEXT_ENCODERS
from builders import array
from builders import backbone
from builders import bert
from builders import clip
from builders import deit
from builders import difference
from builders import features
from builders import randomise
from builders import run
from builders import some_everywhere
from builders import vit

import keras_bridgetower as kbt

pytestmark = LONG_ELSEWHERE

# Weights of the tiny encoders, the same set on every backend.
WEIGHTS = {"clip": 56, "vit": 54, "deit": 55, "roberta": 36, "bert": 53}
PAIRS = [("clip", "roberta"), ("vit", "bert"), ("deit", "bert")]


@pytest.mark.parametrize(
    "pair", some_everywhere(PAIRS, ("clip", "roberta"), ("deit", "bert"))
)
def test_every_pair_of_encoders(pair):
    image, text = pair
    model = backbone(IMAGE_ENCODERS[image](), TEXT_ENCODERS[text]())
    fusion = len(model.fusion.weights)
    assert len(model.weights) == WEIGHTS[image] + WEIGHTS[text] + fusion
    randomise(model)
    inputs = features(model)
    outputs = run(model, inputs)
    tokens = 18 if image == "deit" else 17
    assert {k: v.shape for k, v in outputs.items()} == {
        "text": (3, 6, 16),
        "image": (3, tokens, 16),
        "pooled": (3, 32),
    }
    copy = kbt.BridgeTowerBackbone.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert difference(run(copy, inputs), outputs) == 0


@pytest.mark.parametrize(
    "values",
    [
        dict(image_encoder=deit(), text_encoder=bert(), image_norms="per_tap"),
        dict(
            projections="per_layer",
            taps=(-2, None),
            intermediate_dim=24,
            bridge="gate",
            cross_encoder="merged_attention",
        ),
    ],
)
def test_saved_models_give_the_same_outputs(values, tmp_path):
    model = randomise(backbone(**values))
    inputs = features(model)
    expected = run(model, inputs)
    model.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    assert json.dumps(copy.get_config()) == json.dumps(model.get_config())
    assert difference(run(copy, inputs), expected) == 0
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    assert difference(run(copy, inputs), expected) == 0


def test_padding_does_not_change_outputs():
    model = randomise(backbone())
    short, more = features(tokens=4), ((0, 0), (0, 5))
    long = {
        "images": short["images"],
        "token_ids": np.pad(short["token_ids"], more, constant_values=1),
        "padding_mask": np.pad(short["padding_mask"], more),
    }
    a, b = (model.predict(x, verbose=0)["pooled"] for x in (short, long))
    assert difference(a, b) <= 1e-5


@pytest.mark.parametrize("make", some_everywhere([clip, vit, deit], clip))
def test_other_image_sizes_resize_only_positions(make):
    model = randomise(backbone(make()))
    same = model.with_image_size(32)
    assert difference(run(same, features()), run(model, features())) == 0
    larger = model.with_image_size(48)
    assert larger.image_size == 48 and model.image_size == 32
    prefix = 2 if make is deit else 1
    outputs = run(larger, features(side=48))
    assert outputs["image"].shape == (3, prefix + 36, 16)
    for weight, resized in zip(model.weights, larger.weights, strict=True):
        old, new = array(weight), array(resized)
        if "position_embedding" in weight.path:
            old, new = old[..., :1, :], new[..., :1, :]
        if "position_ids" not in weight.path:
            assert difference(old, new) == 0


@pytest.fixture(scope="module")
def unchanged():
    """A backbone that no test changes."""
    return backbone()


@pytest.mark.parametrize(
    "make, error, named",
    [
        (lambda m: m({"token_ids": 0}), ValueError, "'images', 'padding_mask'"),
        (lambda m: m(features(side=40)), ValueError, r"\(None, 32, 32, 3\)"),
        (
            lambda m: m(features() | {"padding_mask": np.ones((1, 6))}),
            ValueError,
            "batch size",
        ),
        (lambda m: backbone(keras.Sequential()), TypeError, "vision_encoder"),
        (lambda m: backbone(num_layers=3), ValueError, "taps"),
        (lambda m: backbone(image_norms="a"), ValueError, "image_norms"),
        (
            lambda m: backbone(clip(dtype="bfloat16")),
            ValueError,
            "image_encoder",
        ),
        (lambda m: backbone(num_heads=3), ValueError, "`num_heads` must divi"),
    ],
)
def test_what_does_not_fit_is_rejected(make, error, named, unchanged):
    with pytest.raises(error, match=named):
        make(unchanged)
