"""A feature pyramid with batch norms beside RoBERTa, in tasks."""

import types

import keras
import keras_hub
import numpy as np
import pytest
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
from keras_bridgetower.distribution.strategy import check_batch_norms

pytestmark = LONG_ELSEWHERE


def efficientnet(side=32, **kwargs):
    """An encoder of three blocks and top layers, of four widths and grids."""
    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 3, 3],
        stackwise_num_repeats=[1, 1, 1],
        stackwise_input_filters=[8, 8, 16],
        stackwise_output_filters=[8, 16, 24],
        stackwise_expansion_ratios=[1, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0.25] * 3,
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["v1", "unfused", "unfused"],
        stem_conv_padding="same",
        include_stem_padding=False,
        input_shape=(side, side, 3),
        **kwargs,
    )


def pair(side=32):
    return backbone(
        efficientnet(side),
        roberta(layers=4),
        num_layers=4,
        projections="per_layer",
    )


def vqa():
    return kbt.BridgeTowerVQA(pair(), preprocessor())


def statistics(model):
    return [w for w in model.weights if "moving_" in w.path]


def test_default_taps_have_several_widths_and_one_grid():
    made = pair()
    states = run(made.image_tower, features()["images"])
    assert [x.shape[1:] for x in states] == [
        (17, width) for width in (8, 16, 24, 1280)
    ]
    with pytest.raises(ValueError, match="must be 'per_layer'"):
        backbone(efficientnet(), roberta(layers=4), num_layers=4)


def test_training_moves_statistics_unless_the_tower_is_frozen():
    """Several replicas would each have their own."""
    replicas = types.SimpleNamespace(count=2, device_name="2 replicas")
    task = eager(vqa(), keras.optimizers.AdamW(3e-3))
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
    for weight, value in zip(statistics(task), after, strict=True):
        assert difference(weight, value) == 0


def test_other_sizes_maps_and_checkpoints_of_activations():
    made = pair()
    large = made.with_image_size(48)
    inputs = features(large, side=48)
    assert run(large, inputs)["image"].shape == (3, 1 + 6 * 6, 16)
    assert_same_weights(made, large)
    maps = made.attention_maps(features(made))
    assert maps["text_cross"][-1].shape[-1] == 17
    # Blocks with attention only: a second run would count statistics twice.
    assert not made.image_tower.blocks
    made.checkpoint_activations()
