"""Parameter counts of the paper and of transformers, nothing allocated."""

import keras_hub
import numpy as np
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.backend.uninitialized import shapes_only
from keras_bridgetower.models import bridges

pytestmark = FASTEST

BASE = dict(hidden_dim=768, num_heads=12, num_layers=6)
LARGE = dict(hidden_dim=1024, num_heads=16, num_layers=6)
# Parameters each definition adds to the cross-modal layers, K = 6.
BRIDGES = {
    "add": 18_432,
    "multiply": 18_432,
    "interpolate": 26_112,
    "gate": 18_432 + 10 * 1_180_416,
    "linear": 18_432 + 10 * 1_180_416,
    "mlp": 18_432 + 10 * 3_541_248,
    "cross_attention": 18_432 + 10 * 2_362_368,
    "cross_attention_ffn": 18_432 + 10 * 7_084_800,
    "add_linear": 18_432 + 10 * 1_180_416,
    "scaled_add": 18_432 + 10,
    "interpolate_scalar": 18_432 + 10,
}
PUBLISHED_BRIDGES = {
    "add": 18.4e3,
    "multiply": 18.4e3,
    "interpolate": 26.1e3,
    "gate": 11.8e6,
    "linear": 11.8e6,
    "mlp": 35.4e6,
    "cross_attention": 23.6e6,
    "cross_attention_ffn": 70.9e6,
    "add_linear": 11.8e6,
}
PUBLISHED_LAYERS = {
    2: 37.8,
    3: 56.8,
    4: 75.6,
    5: 94.6,
    6: 113.4,
    8: 151.2,
    10: 189.0,
    12: 226.8,
}


def count(layer):
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


def fusion(values, **kwargs):
    layer = kbt.CrossModalEncoder(**values, **kwargs)
    tapped = sum(tap is not None for tap in layer.taps)
    state = (None, None, values["hidden_dim"])
    with shapes_only():
        layer.build([state] * tapped, [state] * tapped)
    return layer


def steps(values, **kwargs):
    return sum(count(step) for step in fusion(values, **kwargs).steps)


def full(values, vision, text):
    with shapes_only():
        return kbt.BridgeTowerBackbone(
            keras_hub.models.CLIPVisionEncoder(**vision),
            keras_hub.models.RobertaBackbone(50_265, **text),
            **values,
        )


def test_cross_modal_layers_of_base_and_large():
    assert steps(BASE) == 113_421_312
    assert steps(LARGE) == 201_560_064


def test_merged_attention_is_one_transformer_block():
    d = 768
    block = 4 * (d * d + d) + 8 * d * d + 5 * d + 2 * 2 * d
    assert steps(BASE, cross_encoder="merged_attention") == 6 * block


@pytest.mark.parametrize("layers", PUBLISHED_LAYERS)
def test_cross_modal_layers_of_any_number(layers):
    counted = steps(BASE | {"num_layers": layers})
    assert counted == 113_421_312 // 6 * layers
    assert abs(counted / 1e6 - PUBLISHED_LAYERS[layers]) <= 0.1


@pytest.mark.parametrize("bridge", BRIDGES)
def test_parameters_of_bridges(bridge):
    bare = count(fusion(BASE, bridge=None))
    added = count(fusion(BASE, bridge=bridge)) - bare
    assert added == BRIDGES[bridge]
    if bridge in PUBLISHED_BRIDGES:
        assert added == pytest.approx(PUBLISHED_BRIDGES[bridge], rel=5e-3)


def test_every_bridge_is_counted():
    assert set(BRIDGES) == set(bridges.BRIDGES)


def test_base_against_transformers():
    model = full(
        BASE,
        dict(
            patch_size=16,
            hidden_dim=768,
            num_layers=12,
            num_heads=12,
            intermediate_dim=3072,
            image_shape=(288, 288, 3),
        ),
        dict(
            num_layers=12, num_heads=12, hidden_dim=768, intermediate_dim=3072
        ),
    )
    vision, text = count(model.image_tower), count(model.text_tower)
    pooler, folded_rows, third_type_row = 590_592, 2_304, 768
    assert vision == 85_897_728
    assert text == 124_645_632 - pooler - folded_rows
    assert count(model) == 326_347_008 - pooler - folded_rows + third_type_row


def test_large_against_transformers():
    model = full(
        LARGE,
        dict(
            patch_size=14,
            hidden_dim=1024,
            num_layers=24,
            num_heads=16,
            intermediate_dim=4096,
            image_shape=(294, 294, 3),
        ),
        dict(
            num_layers=24, num_heads=16, hidden_dim=1024, intermediate_dim=4096
        ),
    )
    pooler, folded_rows, third_type_row = 1_049_600, 3_072, 1_024
    assert count(model.image_tower) == 303_369_216
    assert count(model.text_tower) == 355_359_744 - pooler - folded_rows
    assert count(model) == 864_514_048 - pooler - folded_rows + third_type_row
