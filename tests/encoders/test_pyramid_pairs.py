"""A feature pyramid with batch norms beside RoBERTa, in tasks."""

import types

import keras
import numpy as np
import pytest
import whole_folders
from builders import LONG_ELSEWHERE
from builders import assert_same_weights
from builders import backbone
from builders import difference
from builders import eager
from builders import features
from builders import preprocessor
from builders import raw
from builders import roberta
from builders import run

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.distribution.strategy import check_batch_norms

pytestmark = LONG_ELSEWHERE


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


def statistics(model):
    return [w for w in model.weights if "moving_" in w.path]


def test_default_taps_have_several_widths_and_one_grid(folder):
    made = pair(folder)
    states = run(made.image_tower, features()["images"])
    assert [x.shape[1:] for x in states] == [
        (65, width) for width in (8, 16, 24, 640)
    ]
    with pytest.raises(ValueError, match="must be 'per_layer'"):
        pair(folder, projections="shared")


def test_training_moves_statistics_unless_the_tower_is_frozen(folder):
    """Several replicas would each have their own."""
    replicas = types.SimpleNamespace(count=2, device_name="2 replicas")
    task = kbt.BridgeTowerVQA(pair(folder), preprocessor())
    eager(task, keras.optimizers.AdamW(3e-3))
    with pytest.raises(ValueError, match="10 batch norms"):
        check_batch_norms(task, replicas)
    x, y = raw()
    before = [np.array(w) for w in statistics(task)]
    assert len(before) == 20
    losses = task.fit(x, y, batch_size=4, epochs=4, verbose=0)
    losses = losses.history["loss"]
    assert losses[-1] < losses[0]
    after = [np.array(w) for w in statistics(task)]
    assert all(difference(a, b) > 0 for a, b in zip(before, after, strict=True))
    task.backbone.image_tower.trainable = False
    check_batch_norms(task, replicas)
    eager(task)
    task.fit(x, y, batch_size=4, verbose=0)
    assert_same_weights(statistics(task), after)


def test_other_sizes_maps_and_checkpoints_of_activations(folder):
    made = pair(folder)
    large = made.with_image_size(48)
    inputs = features(large, side=48)
    assert run(large, inputs)["image"].shape == (3, 1 + 12 * 12, 16)
    assert_same_weights(made, large)
    maps = made.attention_maps(features(made))
    assert maps["text_cross"][-1].shape[-1] == 65
    # Blocks with attention only: a second run would count statistics twice.
    assert not made.image_tower.blocks
    made.checkpoint_activations()
