"""The backbone: parts and whole, saving, sizes, frozen parts."""

import functools

import keras
import keras_hub
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import clip
from builders import deit
from builders import difference
from builders import features
from builders import preprocessor
from builders import randomise
from builders import run
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private.variables import shapes_only
from keras_bridgetower.models import bridges

pytestmark = LONG_ELSEWHERE


@pytest.mark.parametrize("make", [clip, deit])
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


in_half = functools.partial(clip, dtype="bfloat16")


@pytest.mark.parametrize(
    "values, error, words",
    [
        ({"image_encoder": keras.Sequential}, TypeError, "vision_encoder"),
        ({"num_layers": 3}, ValueError, "taps"),
        ({"image_norms": "a"}, ValueError, "image_norms"),
        ({"image_encoder": in_half}, ValueError, "`image_encoder` must have"),
        ({"text_encoder": clip}, ValueError, "`text_encoder` must be"),
        ({"num_heads": 3}, ValueError, "`num_heads` must divi"),
        ({"text_summary": "class"}, ValueError, "`summary`"),
        ({"image_positions": "coordinates"}, ValueError, "`positions` must be"),
        *(
            ({"image_taps": taps, **values}, ValueError, words)
            for taps, values, words in (
                ((-1,), {}, "`image_taps` must be 2 negative indices"),
                ((-1, None), {}, "`image_taps` must be as long as"),
                ((-9, -1), {}, "must count the encoder's 3 states"),
                ((-2,), {"bridge": "static_manager"}, "as long as"),
                ((-2, -1), {"bridge": None}, "`image_taps` must be"),
            )
        ),
    ],
)
def test_what_does_not_fit_is_rejected(values, error, words):
    values = {k: v() if callable(v) else v for k, v in values.items()}
    with pytest.raises(error, match=words):
        backbone(**values)


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
# Parameters of six layers, and of a block of merged attention with D = 768.
LAYERS = 113_421_312
BLOCK = 4 * (768**2 + 768) + 8 * 768**2 + 5 * 768 + 2 * 2 * 768


def count(layer):
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


def fusion(values, **kwargs):
    layer = kbt.CrossModalEncoder(**values, **kwargs)
    tapped = sum(tap is not None for tap in layer.taps)
    state = (None, None, values["hidden_dim"])
    with shapes_only():
        layer.build([state] * tapped, [state] * tapped)
    return layer


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


@FASTEST
@pytest.mark.parametrize(
    "values, counted, published",
    [
        (BASE, LAYERS, None),
        (LARGE, 201_560_064, None),
        (BASE | {"cross_encoder": "merged_attention"}, 6 * BLOCK, None),
        (BASE | {"num_layers": 12}, LAYERS * 2, 226.8e6),
    ],
)
def test_parameters_of_cross_modal_layers(values, counted, published):
    assert sum(map(count, fusion(values).steps)) == counted
    assert published is None or abs(counted - published) <= 1e5


@FASTEST
def test_parameters_of_bridges():
    bare = count(fusion(BASE, bridge=None))
    for bridge in bridges.BRIDGES:
        added = count(fusion(BASE, bridge=bridge)) - bare
        counted, published = BRIDGES[bridge]
        assert added == counted, bridge
        assert published is None or added == pytest.approx(published, rel=5e-3)


@FASTEST
def test_parameters_of_managers():
    layer = fusion(BASE, bridge="adaptive_manager")
    # The checkpoint has a temperature more in each manager, that nothing
    # reads, and an embedding for each of its 12 + 12 blocks.
    embeddings = count(layer) - count(fusion(BASE, bridge="add")) + 18_432
    assert embeddings - (12_062_292 - 12) == 18_432 / 2
    for number, counted in ((0, 13_826), (1, 1_203_464)):
        assert count(layer.text_bridges[number]) + 1 == counted


@FASTEST
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


PARTS = {
    "text tower": lambda task: task.backbone.text_tower,
    "image encoder": lambda task: task.backbone.image_encoder,
    "fusion": lambda task: task.backbone.fusion,
    "head": lambda task: task.heads["vqa"],
    "task": lambda task: task,
}


def saved_and_loaded(task, folder):
    task.save(folder / "a.keras")
    return keras.saving.load_model(folder / "a.keras")


def from_config(task, folder):
    return type(task).from_config(task.get_config())


@pytest.fixture
def task():
    return kbt.BridgeTowerVQA(shallow(), preprocessor())


def frozen_in(task):
    """Return the indices of the weights that are not trained."""
    places = enumerate(task.weights)
    return [place for place, weight in places if not weight.trainable]


@FASTEST
@pytest.mark.parametrize(
    "part, copy",
    [*((part, saved_and_loaded) for part in PARTS), ("fusion", from_config)],
)
def test_copies_of_a_frozen_part(part, copy, task, tmp_path):
    PARTS[part](task).trainable = False
    copied = copy(task, tmp_path)
    assert frozen_in(copied) == frozen_in(task)
    assert len(copied.trainable_variables) == len(task.trainable_variables)
    assert not PARTS[part](copied).trainable


@FASTEST
def test_single_frozen_weights_are_saved(task, tmp_path):
    never = frozen_in(task)
    task.backbone.fusion.trainable_variables[3].trainable = False
    copied = saved_and_loaded(task, tmp_path)
    assert frozen_in(copied) == frozen_in(task)
    assert len(frozen_in(copied)) == len(never) + 1


def test_presets_open_fully_trainable(task, tmp_path):
    never = frozen_in(task)
    task.backbone.trainable = False
    task.save_to_preset(tmp_path / "frozen")
    opened = kbt.BridgeTowerVQA.from_preset(tmp_path / "frozen")
    assert frozen_in(opened) == never and opened.backbone.trainable
    for part in (opened.backbone.image_encoder, opened.backbone.text_encoder):
        assert part.trainable
