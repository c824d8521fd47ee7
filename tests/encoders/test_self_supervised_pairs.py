"""DINOv2 with registers and DINOv3: positions, maps, adapters, int8."""

import adapted
import keras_hub
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import PATCH
from builders import SIDE
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import difference
from builders import features
from builders import long_but
from builders import randomise
from builders import raw
from builders import run
from builders import slow_on
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower import analysis

pytestmark = LONG_ELSEWHERE

SIZES = dict(
    patch_size=PATCH,
    num_layers=2,
    hidden_dim=16,
    num_heads=2,
    intermediate_dim=32,
    num_register_tokens=3,
    image_shape=(SIDE, SIDE, 3),
)


def dinov2(**kwargs):
    stored = {"position_embedding_shape": (SIDE, SIDE, 3)}
    return keras_hub.models.DINOV2Backbone(**SIZES | stored | kwargs)


def dinov3(**kwargs):
    return keras_hub.models.DINOV3Backbone(**SIZES | kwargs)


# The table of DINOv2; DINOv3 has none.
POSITIONS = "interpolated_position_embeddings"
BOTH = pytest.mark.parametrize("make", [dinov2, dinov3])
ONE = pytest.mark.parametrize("make", long_but([dinov2, dinov3], dinov3))


def answering(make):
    return randomise(vqa(image_encoder=make()))


@pytest.mark.parametrize("change", [-0.5, 0.5])
def test_trained_positions_are_saved(change, tmp_path):
    model = randomise(backbone(dinov2()))
    (table,) = [w for w in model.weights if w.path.endswith(f"/{POSITIONS}")]
    table.assign(array(table) + change)
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    assert_same_weights(copy, model)


def test_other_stored_positions_are_refused():
    other = dinov2(position_embedding_shape=(64, 64, 3))
    with pytest.raises(ValueError, match="`position_embedding_shape`.*64.*32"):
        backbone(other)


@slow_on("jax", "tensorflow")
@BOTH
def test_maps_have_one_value_for_each_patch(make):
    task = answering(make)
    x, _ = raw(1)
    given = task, x["images"][0], x["text"][0]
    for seen in (
        analysis.attention_map(*given),
        analysis.attention_rollout(*given),
        analysis.relevance(*given, answer="red"),
    ):
        # Without the class token and three registers.
        assert seen.whole.shape == (1, 4, 4)
        assert seen.whole.sum() == pytest.approx(1, abs=1e-5)


@FASTEST
@pytest.mark.parametrize(
    "make, projection", [(dinov2, "attention/query"), (dinov3, "q_proj")]
)
def test_adapters(make, projection, tmp_path):
    adapted.check_adapters(
        lambda: randomise(backbone(make())),
        features(),
        "image",
        projection,
        lambda model: model,
        tmp_path,
    )


@FASTEST
@ONE
def test_quantized(make, tmp_path):
    task = randomise(vqa(image_encoder=make()), scale=0.05)
    adapted.check_quantized(task, features(), tmp_path / "preset")


@FASTEST
@ONE
def test_a_frozen_tower_does_not_move(make):
    task = answering(make)
    adapted.check_frozen(task, [task.backbone.image_tower])


@FASTEST
@BOTH
def test_another_image_size(make):
    model = randomise(backbone(make()))
    larger = model.with_image_size(2 * SIDE)
    assert larger.image_tower.prefix_tokens == 4
    x = features(side=2 * SIDE)
    assert run(larger, x)["image"].shape[1] == 4 + 64
    same = larger.image_encoder.get_config()
    assert same["image_shape"] == (2 * SIDE, 2 * SIDE, 3)
    # Back at the first size nothing but DINOv2's table has changed.
    again = larger.with_image_size(SIDE)
    for a, b in zip(again.weights, model.weights, strict=True):
        if "position" not in a.path:
            assert difference(a, b) == 0


@FASTEST
@ONE
def test_recomputed_blocks_give_the_same_step(make):
    def answering_by_two_blocks():
        task = answering(make)
        assert len(task.backbone.image_tower.blocks) == 2
        return task

    adapted.check_recomputed(answering_by_two_blocks)
