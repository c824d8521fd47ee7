"""Pairs of contrastive encoders: embeddings, adapters, int8, lengths."""

import adapted
import builders
import keras
import keras_hub.models as hub
import numpy as np
import peers_siglip
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import SIDE
from builders import VOCABULARY
from builders import array
from builders import difference
from builders import eager
from builders import features
from builders import long_but
from builders import randomise
from builders import raw
from builders import run

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal

pytestmark = LONG_ELSEWHERE

TOKENS = 20
SIZES = dict(hidden_dim=16, num_layers=1, num_heads=2, intermediate_dim=32)
PAIRS = {
    "SigLIP and CLIP": (hub.SigLIPVisionEncoder, hub.CLIPTextEncoder),
    "SigLIP": (hub.SigLIPVisionEncoder, hub.SigLIPTextEncoder),
    "MetaCLIP 2": (hub.MetaCLIP2VisionEncoder, hub.MetaCLIP2TextEncoder),
}
EVERY = pytest.mark.parametrize("pair", PAIRS)
SOME = pytest.mark.parametrize("pair", long_but(PAIRS, "SigLIP and CLIP"))


def encoders(pair):
    """Return new encoders, the second for texts of `TOKENS` ids."""
    image, text = PAIRS[pair]
    # SigLIP does not see the first one.
    positions = TOKENS - (text is hub.SigLIPTextEncoder)
    words = dict(vocabulary_size=VOCABULARY, embedding_dim=16)
    return (
        image(patch_size=8, image_shape=(SIDE, SIDE, 3), **SIZES),
        text(max_sequence_length=positions, **words, **SIZES),
    )


def task(pair, name, scale=0.2, to_preprocess=(), **kwargs):
    """Return a task of one layer."""
    made = getattr(kbt, f"BridgeTower{name}Preprocessor")(
        builders.tokenizer(TOKENS),
        kbt.BridgeTowerImageConverter(SIDE),
        *to_preprocess,
    )
    body = builders.backbone(*encoders(pair), num_layers=1)
    cls = getattr(kbt, f"BridgeTower{name}")
    return randomise(cls(body, made, **kwargs), scale)


def vqa(pair, scale=0.2):
    return task(pair, "VQA", scale, (builders.ANSWERS,))


@EVERY
def test_embeddings_differ_for_every_text_and_picture(pair):
    made = eager(task(pair, "Contrastive", projection_dim=8))
    x, _ = raw(4)
    for found in (made.embed(texts=x["text"]), made.embed(list(x["images"]))):
        rows = array(found)
        apart = np.linalg.norm(rows[:, None] - rows, axis=-1)
        assert (apart + np.eye(4)).min() > 1e-3


@FASTEST
@SOME
def test_contrast_is_learned(pair):
    made = task(pair, "Contrastive", projection_dim=8)
    eager(made, keras.optimizers.Adam(0.01))
    x, _ = raw(4)
    losses = made.fit(x, np.arange(4), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@FASTEST
@SOME
def test_adapters_and_frozen_towers(pair):
    made = vqa(pair)
    towers = made.backbone.image_tower, made.backbone.text_tower
    made.enable_lora(2)
    trained = {id(w) for w in made.trainable_weights}
    for tower in towers:
        paths = [w.path for w in tower.weights if id(w) in trained]
        parts = {path.split("/")[-2] for path in paths}
        assert parts == {"query", "value"}
    made = vqa(pair)
    body = made.backbone
    adapted.check_frozen(made, [body.image_tower, body.text_tower])


@FASTEST
@SOME
def test_quantized(pair, tmp_path):
    made = vqa(pair, scale=0.05)
    x = features(tokens=TOKENS)
    adapted.check_quantized(made, x, tmp_path / "preset")


@FASTEST
@SOME
def test_recomputed_blocks_give_the_same_step(pair):
    def make():
        made = vqa(pair)
        for tower in (made.backbone.image_tower, made.backbone.text_tower):
            assert len(tower.blocks) == 1
        return made

    adapted.check_recomputed(make)


def test_texts_of_another_length_are_refused():
    body = builders.backbone(*encoders("SigLIP"), num_layers=1)
    with pytest.raises(ValueError, match="`token_ids` must have 20 tokens"):
        body(features(tokens=TOKENS - 1))


@pytest.mark.parametrize("name", ["SigLIP", "MetaCLIP2", "CLIP"])
def test_encoders_of_a_preset_of_both(name, tmp_path):
    parts = [getattr(hub, f"{name}{k}Encoder") for k in ("Vision", "Text")]
    images = parts[0](patch_size=8, image_shape=(SIDE, SIDE, 3), **SIZES)
    texts = parts[1](60, 16, max_sequence_length=TOKENS, **SIZES)
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
    model = peers_siglip.siglip(image_size=44)
    model.save_pretrained(tmp_path)
    encoder = unimodal.image_encoder(tmp_path)
    assert encoder.image_shape == (44, 44, 3)
    images = features(side=44)["images"]
    wanted = peers_siglip.IMAGE_STATES(model, images)[-1]
    got = array(run(kbt.Tower(encoder, (-1,)), images)[0])
    assert difference(got[:, 1:], wanted) <= 1e-5


def test_frozen_weights_are_those_of_the_tower(tmp_path):
    """Both encoders of MetaCLIP 2 have weights of the same paths."""
    made = vqa("MetaCLIP 2")
    made.backbone.text_tower.trainable = False
    made.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras").backbone
    assert not copy.text_tower.trainable_weights
    assert len(copy.image_tower.trainable_weights) > 10
