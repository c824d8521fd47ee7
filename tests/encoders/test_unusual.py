"""Encoders with rare settings or heads; sizes and positions."""

import dataclasses
import re
import time

import copies
import keras
import keras_hub.models as hub
import numpy as np
import peers
import pytest
import transformers
from builders import FASTEST
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
from peers import EPSILON
from peers import IMAGE
from peers import PYRAMIDS
from peers import TEXT
from peers import albert
from peers import bert
from peers import clip
from peers import deberta
from peers import dinov2
from peers import dinov2_with_registers
from peers import dinov3
from peers import distilbert
from peers import efficientnet
from peers import electra
from peers import image
from peers import made
from peers import of_dinov2
from peers import of_dinov3
from peers import of_images
from peers import of_texts
from peers import resnet
from peers import roberta
from peers import siglip
from peers import swin
from peers import swin_states
from peers import text
from peers import vit
from peers import xlm_roberta
from test_encoder_peers import compared
from test_encoder_peers import opened

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE


def of_roberta(name, pad, types=1):
    values = TEXT | EPSILON | {"pad_token_id": pad, "type_vocab_size": types}
    return text(name, made(name, **values))


# Heads by which each part differs from the other description of it.
FOUR = {"num_attention_heads": 4}
DICTS = {
    f"{kind}_config_dict": values
    for kind, values in (("text", TEXT), ("vision", IMAGE))
}
WRONG = {"text_config": TEXT | FOUR, "vision_config": IMAGE | FOUR}
NO_BIAS = IMAGE | {"qkv_bias": False}
# A peer, and the changes of its configuration after it is saved.
CASES = {
    "padding is token 0, three types": (of_roberta("Roberta", 0, 3), {}),
    "padding is token 3": (of_roberta("XLMRoberta", 3), {}),
    "ViT": (image("ViT", made("ViT", **NO_BIAS)), {}),
    "DeiT": (image("DeiT", made("DeiT", **NO_BIAS)), {}),
    "DINOv2": (of_dinov2("", lambda: dinov2(qkv_bias=False), "dinov2"), {}),
    "Swin": (image("", lambda: swin(qkv_bias=False), states=swin_states), {}),
    "DINOv3 without registers": (of_dinov3("DINOv3"), {}),
    "DINOv2 without registers": (
        of_dinov2("", lambda: dinov2_with_registers(num_register_tokens=0), ""),
        {},
    ),
    # In transformers the older name of a part wins, but not SigLIP's.
    "CLIP text": (of_texts("CLIP", clip, summary="start"), WRONG | DICTS),
    "CLIP": (of_images("CLIP", clip), WRONG | DICTS),
    "SigLIP": (
        of_images("SigLIP", siglip),
        {"vision_config_dict": WRONG["vision_config"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_states_are_those_of_transformers(case, tmp_path):
    peer, changes = CASES[case]
    model = peer.make()
    model.save_pretrained(tmp_path)
    copies.update(tmp_path / "config.json", **changes)
    model = type(model).from_pretrained(tmp_path).eval()
    inputs = peers.inputs_for(peer)
    if peer.side == "text":
        pad = getattr(model.config, "pad_token_id", 1)
        mask, ids = inputs["padding_mask"], inputs["token_ids"]
        # Another id than that of padding has a position like others.
        ids[0, 2] = 1 if pad != 1 else 0
        inputs["token_ids"] = np.where(mask == 1, ids, pad).astype("int32")
    expected = peer.states(model, inputs)
    _, pairs = compared(peer, opened(peer, tmp_path), expected, inputs)
    for x, wanted in pairs:
        assert difference(x, wanted) <= 1e-5


@FASTEST
@pytest.mark.parametrize("make, part", [(vit, None), (clip, "vision_config")])
def test_a_size_may_be_a_list_of_two_equal_sides(make, part, tmp_path):
    make().save_pretrained(tmp_path)
    plain = unimodal.image_encoder(tmp_path).get_config()
    sizes = {"image_size": [32, 32], "patch_size": [8, 8]}
    copies.update(tmp_path / "config.json", part, **sizes)
    same = unimodal.image_encoder(tmp_path).get_config()
    assert same | {"name": ""} == plain | {"name": ""}
    copies.update(tmp_path / "config.json", part, image_size=[32, 40])
    with pytest.raises(ConversionError):
        unimodal.image_encoder(tmp_path)


TEXTS, IMAGES = unimodal.text_encoder, unimodal.image_encoder
EPSILON_OF_KERAS_HUB = "KerasHub must be able.*layer_norm_eps"
# What reads a folder, what makes its model, and changes of its configuration.
# The error names the value, or what comes last.
REFUSED = [
    *(
        (TEXTS, make, {"is_decoder": True})
        for make in (bert, roberta, xlm_roberta, electra)
    ),
    (TEXTS, bert, {"position_embedding_type": "relative_key"}),
    (TEXTS, bert, {"layer_norm_eps": 1e-5}, EPSILON_OF_KERAS_HUB),
    (TEXTS, roberta, {"layer_norm_eps": 1e-12}, EPSILON_OF_KERAS_HUB),
    (TEXTS, roberta, {"type_vocab_size": 2}),
    (TEXTS, xlm_roberta, {"pad_token_id": -1}),
    (TEXTS, xlm_roberta, {"layer_norm_eps": 1e-12}),
    (TEXTS, distilbert, {"activation": "relu"}),
    (TEXTS, distilbert, {"n_layers": 3}),
    (TEXTS, distilbert, {"dim": 64}),
    (TEXTS, electra, {"hidden_act": "gelu_new"}),
    (TEXTS, electra, {"embedding_size": 32}),
    (TEXTS, electra, {"type_vocab_size": 3}),
    (TEXTS, albert, {"hidden_act": "gelu"}),
    (TEXTS, albert, {"num_hidden_layers": 10_000}),
    (TEXTS, albert, {"num_hidden_groups": 2}),
    (TEXTS, deberta, {"conv_kernel_size": 3}),
    (TEXTS, deberta, {"position_buckets": -1}),
    (TEXTS, deberta, {"pos_att_type": ["c2p"]}),
    (TEXTS, deberta, {"share_att_key": False}),
    (
        IMAGES,
        made("CLIPVision", **IMAGE),
        {"layer_norm_eps": 1e-6},
        EPSILON_OF_KERAS_HUB,
    ),
    (IMAGES, vit, {"num_hidden_layers": -1}),
    (IMAGES, vit, {"num_attention_heads": 5}, "query.weight has shape"),
    (IMAGES, vit, {"image_size": 10**6}, "image_size=1000000, but 32 in"),
    (IMAGES, vit, {"hidden_act": "relu"}),
    (IMAGES, vit, {"layer_norm_eps": 10**400}, "must fit together"),
    (IMAGES, dinov3, {"num_register_tokens": 4}),
    # First stages that KerasHub lacks.
    *(
        (IMAGES, lambda shape=shape: resnet(*shape), {}, found)
        for shape, found in {
            ("bottleneck", (128, 32), 64): "must be 64",
            ("basic", (64, 72), 32): "shortcut.*has no place",
            ("bottleneck", (256, 72), 256): "shortcut.*is missing",
        }.items()
    ),
]


@FASTEST
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[2]}"[:40])
def test_a_setting_that_cannot_be_computed_is_named(case, tmp_path):
    read, make, values, *found = case
    make().save_pretrained(tmp_path)
    copies.update(tmp_path / "config.json", **values)
    named = [re.escape(f"{key}={value!r:.50}") for key, value in values.items()]
    started = time.process_time()
    with pytest.raises(ConversionError, match=(found or named)[0]):
        read(tmp_path)
    assert time.process_time() - started < 20  # before any layer is made


def test_an_efficientnet_reads_other_sizes_if_it_pads_as_its_file_says(
    tmp_path,
):
    model = efficientnet(32)
    model.save_pretrained(tmp_path)
    peer = next(p for p in PYRAMIDS if p.name == "EfficientNet")
    larger = dataclasses.replace(peer, image_size=48)
    inputs = peers.inputs_for(larger)
    encoder = opened(peer, tmp_path, image_size=48)
    _, pairs = compared(peer, encoder, peer.states(model, inputs), inputs)
    for x, wanted in pairs:
        assert difference(x, wanted) <= 1e-5
    # The second of its halvings would have an odd side, which is padded.
    for side in (34, 33, 0):
        with pytest.raises(ConversionError, match=f"image_size={side}"):
            opened(peer, tmp_path, image_size=side)


# Classes whose heads have tensors of other names.
HEADS = {
    "BertForPreTraining": bert,
    "BertForMultipleChoice": bert,
    "RobertaForQuestionAnswering": roberta,
    "XLMRobertaForSequenceClassification": xlm_roberta,
    "DistilBertForQuestionAnswering": distilbert,
    "DistilBertForSequenceClassification": distilbert,
    "ElectraForMaskedLM": electra,
    "ElectraForMultipleChoice": electra,
    "AlbertForMaskedLM": albert,
    "AlbertForTokenClassification": albert,
    "DebertaV2ForSequenceClassification": deberta,
}


@FASTEST
@pytest.mark.parametrize("name", HEADS)
def test_a_model_with_any_head_opens(name, tmp_path):
    model = getattr(transformers, name)(HEADS[name]().config)
    model.save_pretrained(tmp_path)
    assert unimodal.text_encoder(tmp_path).num_layers == 2


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
    model = randomise(backbone(dino(2, num_layers=1), num_layers=1))
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


@pytest.mark.parametrize("name", ["SigLIP", "CLIP"])
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
    model = peers.siglip(image_size=44)
    model.save_pretrained(tmp_path)
    encoder = unimodal.image_encoder(tmp_path)
    assert encoder.image_shape == (44, 44, 3)
    images = features(side=44)["images"]
    wanted = peers.of_images("", None).states(model, images)[-1]
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
