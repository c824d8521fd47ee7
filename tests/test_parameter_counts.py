"""Parameter counts of the paper and of transformers, nothing allocated."""

import re

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
# Parameters each definition adds to the cross-modal layers, K = 6, and the
# number that is published.
BRIDGES = {
    "add": (18_432, 18.4e3),
    "multiply": (18_432, 18.4e3),
    "interpolate": (26_112, 26.1e3),
    "gate": (18_432 + 10 * 1_180_416, 11.8e6),
    "linear": (18_432 + 10 * 1_180_416, 11.8e6),
    "mlp": (18_432 + 10 * 3_541_248, 35.4e6),
    "cross_attention": (18_432 + 10 * 2_362_368, 23.6e6),
    "cross_attention_ffn": (18_432 + 10 * 7_084_800, 70.9e6),
    "add_linear": (18_432 + 10 * 1_180_416, 11.8e6),
    "scaled_add": (18_432 + 10, None),
    "interpolate_scalar": (18_432 + 10, None),
}
PUBLISHED_LAYERS = {2: 37.8, 3: 56.8, 12: 226.8}


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


def full(values, layers, heads, patch, side):
    width = values["hidden_dim"]
    common = dict(num_layers=layers, hidden_dim=width)
    common["intermediate_dim"] = 4 * width
    with shapes_only():
        vision = keras_hub.models.CLIPVisionEncoder(
            patch_size=patch,
            num_heads=heads,
            image_shape=(side, side, 3),
            **common,
        )
        text = keras_hub.models.RobertaBackbone(
            50_265, num_heads=heads, **common
        )
        return kbt.BridgeTowerBackbone(vision, text, **values)


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


def test_parameters_of_bridges():
    bare = count(fusion(BASE, bridge=None))
    for bridge in bridges.BRIDGES:
        added = count(fusion(BASE, bridge=bridge)) - bare
        counted, published = BRIDGES[bridge]
        assert added == counted, bridge
        assert published is None or added == pytest.approx(published, rel=5e-3)


def test_parameters_of_managers():
    layer = fusion(BASE, bridge="adaptive_manager")
    names = {"managers": r"_manager_\d", "embeddings": r"_(text|image)_layers$"}
    found = {
        name: sum(
            int(np.prod(w.shape))
            for w in layer.trainable_weights
            if re.search(pattern, w.path)
        )
        for name, pattern in names.items()
    }
    # The checkpoint has a temperature more in each manager, that nothing
    # reads, and an embedding for each of its 12 + 12 blocks.
    assert found["managers"] + 12 == 12_062_292
    assert 2 * found["embeddings"] == 18_432
    # No layer norms before and in bridges.
    added = count(layer) - count(fusion(BASE, bridge="add"))
    assert added == 12_062_280 - 18_432 + 9_216
    for number, counted in ((0, 13_826), (1, 1_203_464)):
        assert count(layer.text_bridges[number]) + 1 == counted


@pytest.mark.parametrize(
    "values, sizes, counts",
    [
        (BASE, (12, 12, 16, 288), (85_897_728, 124_645_632, 326_347_008)),
        (LARGE, (24, 16, 14, 294), (303_369_216, 355_359_744, 864_514_048)),
    ],
)
def test_counts_of_transformers(values, sizes, counts):
    model, width = full(values, *sizes), values["hidden_dim"]
    vision, text, whole = counts
    # Without RoBERTa's pooler and its three rows that never matter.
    less, third_type_row = width**2 + width + 3 * width, width
    assert count(model.image_tower) == vision
    assert count(model.text_tower) == text - less
    assert count(model) == whole - less + third_type_row
