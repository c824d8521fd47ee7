"""Sizes, positions and presets of self-supervised and contrastive encoders."""

import keras
import keras_hub.models as hub
import peers_first
import pytest
from builders import LONG_ELSEWHERE
from builders import PATCH
from builders import SIDE
from builders import VOCABULARY
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import difference
from builders import features
from builders import randomise
from builders import run

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal

pytestmark = LONG_ELSEWHERE

SIZES = dict(num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32)
ONE_LAYER = SIZES | {"num_layers": 1}
TOKENS = 20


def dino(version, **kwargs):
    values = dict(num_register_tokens=3, image_shape=(SIDE, SIDE, 3))
    if version == 2:
        values["position_embedding_shape"] = (SIDE, SIDE, 3)
    cls = getattr(hub, f"DINOV{version}Backbone")
    return cls(patch_size=PATCH, **SIZES | values | kwargs)


def encoders(name):
    """An image encoder and a text encoder of the same model."""
    image, text = (
        getattr(hub, f"{name}{k}Encoder") for k in ("Vision", "Text")
    )
    return (
        image(patch_size=PATCH, image_shape=(SIDE, SIDE, 3), **ONE_LAYER),
        text(VOCABULARY, 16, max_sequence_length=TOKENS, **ONE_LAYER),
    )


def test_trained_positions_are_saved(tmp_path):
    """DINOv2 has a second table, for the size of its input."""
    model = randomise(backbone(dino(2)))
    name = "/interpolated_position_embeddings"
    (table,) = [w for w in model.weights if w.path.endswith(name)]
    table.assign(array(table) + 0.5)
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    assert_same_weights(copy, model)


def test_other_stored_positions_are_refused():
    other = dino(2, position_embedding_shape=(64, 64, 3))
    with pytest.raises(ValueError, match="`position_embedding_shape`.*64.*32"):
        backbone(other)


def test_texts_of_another_length_are_refused():
    body = backbone(*encoders("SigLIP"), num_layers=1)
    with pytest.raises(ValueError, match="`token_ids` must have 21 tokens"):
        body(features(tokens=TOKENS))


@pytest.mark.parametrize("name", ["SigLIP", "MetaCLIP2", "CLIP"])
def test_encoders_of_a_preset_of_both(name, tmp_path):
    images, texts = encoders(name)
    width = {} if name == "SigLIP" else {"projection_dim": 8}
    both = getattr(hub, f"{name}Backbone")(images, texts, **width)
    randomise(both).save_to_preset(str(tmp_path / "both"))
    x = features(tokens=TOKENS + (name == "SigLIP"))
    ids = {key: x[key] for key in ("token_ids", "padding_mask")}
    for encoder, read, inputs in (
        (images, unimodal.image_encoder, x["images"]),
        (texts, unimodal.text_encoder, ids),
    ):
        opened = read(tmp_path / "both")
        assert type(opened) is type(encoder)
        expected = run(kbt.Tower(encoder, (-1,)), inputs)
        assert difference(run(kbt.Tower(opened, (-1,)), inputs), expected) == 0


def test_a_border_that_no_patch_has(tmp_path):
    """As SigLIP of 384 pixels, which has 27 patches of 14."""
    model = peers_first.siglip(image_size=44)
    model.save_pretrained(tmp_path)
    encoder = unimodal.image_encoder(tmp_path)
    assert encoder.image_shape == (44, 44, 3)
    images = features(side=44)["images"]
    wanted = peers_first.of_images("", None).states(model, images)[-1]
    got = array(run(kbt.Tower(encoder, (-1,)), images)[0])
    assert difference(got[:, 1:], wanted) <= 1e-5


def test_frozen_weights_are_those_of_the_tower(tmp_path):
    """Both encoders of MetaCLIP 2 have weights of the same paths."""
    made = backbone(*encoders("MetaCLIP2"), num_layers=1)
    made.text_tower.trainable = False
    made.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    assert not copy.text_tower.trainable_weights
    assert len(copy.image_tower.trainable_weights) > 10
