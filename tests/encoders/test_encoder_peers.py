"""Every encoder from a folder of `transformers`: states, sizes and settings."""

import dataclasses
import re
import shutil
import time

import copies
import keras
import keras_hub.models as hub
import numpy as np
import peers
import pytest
import torch
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
from builders import run_once

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

# Other settings of an encoder that is compared anyway.
VARIANTS = (
    *("DINOv2", "DINOv2 SwiGLU", "DINOv3 gated", "ViT with pooler"),
    "EfficientNet with odd sides",
    *("ResNet of bottleneck blocks", "SigLIP 2", "SigLIP 2 (NaFlex)"),
    *("MetaCLIP 2 (gelu)", "ELECTRA without projection"),
    *("ALBERT with two groups of two blocks", "DeBERTa-v3 with long texts"),
)


def some(cases, mark=pytest.mark.slow):
    """Return parameters of a test, the variants with a mark."""
    return [
        pytest.param(p, marks=mark) if p.name in VARIANTS else p for p in cases
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function that makes a peer and its folder, once each."""
    made = {}

    def get(peer):
        if peer.name not in made:
            folder = tmp_path_factory.mktemp("peer")
            model = peer.make()
            model.save_pretrained(folder)
            made[peer.name] = model, folder
        return made[peer.name]

    return get


def opened(peer, folder, **kwargs):
    read = {"image": unimodal.image_encoder, "text": unimodal.text_encoder}
    return read[peer.side](folder, **kwargs)


def tower_of(encoder, summary=None):
    count = len(kbt.hidden_states(encoder))
    return kbt.Tower(encoder, range(-count, 0), summary=summary)


def own_rows(x, wanted):
    """Return a state without rows that the tower adds in front."""
    return array(x)[:, x.shape[1] - wanted.shape[1] :]


def given(tower, inputs):
    """Return the inputs that a tower takes."""
    if not isinstance(inputs, dict):
        return inputs
    return {key: inputs[key] for key in tower.input}


def compared(peer, encoder, expected, inputs):
    """Return a model of all states, and pairs of ours and theirs."""
    grids = any(x is not None and x.ndim == 4 for x in expected)
    if grids:
        # Before the tower brings all grids to one size.
        states = keras.Model(encoder.inputs[0], kbt.hidden_states(encoder))
    else:
        states = tower_of(encoder, peer.summary)
    got = run_once(states, given(states, inputs))
    got = got if isinstance(got, list) else [got]
    pairs = []
    for x, wanted in zip(got, expected, strict=True):
        if wanted is None:
            continue
        x = array(x) if grids else own_rows(x, wanted)
        if peer.side == "text" and peer.masked:
            rows = inputs["padding_mask"] == 1
            x, wanted = x[rows], wanted[rows]
        pairs.append((x, wanted))
    return states, pairs


def parameters_of(model):
    weights = [w for w in model.weights if not w.path.endswith("position_ids")]
    return sum(int(np.prod(w.shape)) for w in weights)


@pytest.mark.parametrize(
    "peer", some(peers.PEERS, mark=LONG_ELSEWHERE), ids=str
)
def test_states_and_parameters_are_those_of_transformers(peer, saved):
    model, folder = saved(peer)
    inputs = peers.inputs_for(peer)
    expected = peer.states(model, inputs)
    states, pairs = compared(peer, opened(peer, folder), expected, inputs)
    assert parameters_of(states) == peer.parameters(model)
    for x, wanted in pairs:
        assert difference(x, wanted) <= 1e-5


@LONG_ELSEWHERE
@pytest.mark.parametrize(
    "peer",
    some(p for p in peers.PEERS if p.side == "image" and p.resizes),
    ids=str,
)
def test_another_image_size(peer, saved):
    model, folder = saved(peer)
    for side in (peer.image_size // 2, 2 * peer.image_size):
        tower = tower_of(opened(peer, folder, image_size=side))
        images = peers.inputs_for(dataclasses.replace(peer, image_size=side))
        expected = peer.states(model, images)
        for x, wanted in zip(run(tower, images), expected, strict=True):
            assert difference(own_rows(x, wanted), wanted) <= 1e-5


@FASTEST
@pytest.mark.parametrize("peer", some(peers.PEERS), ids=str)
def test_a_tensor_too_many_is_named(peer, saved, tmp_path):
    folder = shutil.copytree(saved(peer)[1], tmp_path / "peer")
    extra = {"an.extra.weight": torch.ones(3)}
    copies.edit_tensors(folder, lambda state: state.update(extra))
    with pytest.raises(ConversionError, match="an.extra.weight"):
        opened(peer, folder)


# --- Rare settings and heads ---


def of_roberta(name, pad, types=1):
    values = (
        peers.TEXT
        | peers.EPSILON
        | {"pad_token_id": pad, "type_vocab_size": types}
    )
    return peers.text(name, peers.made(name, **values))


# Heads by which each part differs from the other description of it.
FOUR = {"num_attention_heads": 4}
DICTS = {
    f"{kind}_config_dict": values
    for kind, values in (("text", peers.TEXT), ("vision", peers.IMAGE))
}
WRONG = {"text_config": peers.TEXT | FOUR, "vision_config": peers.IMAGE | FOUR}
NO_BIAS = peers.IMAGE | {"qkv_bias": False}
# A peer, and the changes of its configuration after it is saved.
CASES = {
    "padding is token 0, three types": (of_roberta("Roberta", 0, 3), {}),
    "padding is token 3": (of_roberta("XLMRoberta", 3), {}),
    "ViT": (peers.image("ViT", peers.made("ViT", **NO_BIAS)), {}),
    "DeiT": (peers.image("DeiT", peers.made("DeiT", **NO_BIAS)), {}),
    "DINOv2": (
        peers.of_dinov2("", lambda: peers.dinov2(qkv_bias=False), "dinov2"),
        {},
    ),
    "Swin": (
        peers.image(
            "", lambda: peers.swin(qkv_bias=False), states=peers.swin_states
        ),
        {},
    ),
    "DINOv3 without registers": (peers.of_dinov3("DINOv3"), {}),
    "DINOv2 without registers": (
        peers.of_dinov2(
            "", lambda: peers.dinov2_with_registers(num_register_tokens=0), ""
        ),
        {},
    ),
    # In transformers the older name of a part wins, but not SigLIP's.
    "CLIP text": (
        peers.of_texts("CLIP", peers.clip, summary="start"),
        WRONG | DICTS,
    ),
    "CLIP": (peers.of_images("CLIP", peers.clip), WRONG | DICTS),
    "SigLIP": (
        peers.of_images("SigLIP", peers.siglip),
        {"vision_config_dict": WRONG["vision_config"]},
    ),
}


@LONG_ELSEWHERE
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
@pytest.mark.parametrize(
    "make, part", [(peers.vit, None), (peers.clip, "vision_config")]
)
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
        for make in (
            peers.bert,
            peers.roberta,
            peers.xlm_roberta,
            peers.electra,
        )
    ),
    (TEXTS, peers.bert, {"position_embedding_type": "relative_key"}),
    (TEXTS, peers.bert, {"layer_norm_eps": 1e-5}, EPSILON_OF_KERAS_HUB),
    (TEXTS, peers.roberta, {"layer_norm_eps": 1e-12}, EPSILON_OF_KERAS_HUB),
    (TEXTS, peers.roberta, {"type_vocab_size": 2}),
    (TEXTS, peers.xlm_roberta, {"pad_token_id": -1}),
    (TEXTS, peers.xlm_roberta, {"layer_norm_eps": 1e-12}),
    (TEXTS, peers.distilbert, {"activation": "relu"}),
    (TEXTS, peers.distilbert, {"n_layers": 3}),
    (TEXTS, peers.distilbert, {"dim": 64}),
    (TEXTS, peers.electra, {"hidden_act": "gelu_new"}),
    (TEXTS, peers.electra, {"embedding_size": 32}),
    (TEXTS, peers.electra, {"type_vocab_size": 3}),
    (TEXTS, peers.albert, {"hidden_act": "gelu"}),
    (TEXTS, peers.albert, {"num_hidden_layers": 10_000}),
    (TEXTS, peers.albert, {"num_hidden_groups": 2}),
    (TEXTS, peers.deberta, {"conv_kernel_size": 3}),
    (TEXTS, peers.deberta, {"position_buckets": -1}),
    (TEXTS, peers.deberta, {"pos_att_type": ["c2p"]}),
    (TEXTS, peers.deberta, {"share_att_key": False}),
    (
        IMAGES,
        peers.made("CLIPVision", **peers.IMAGE),
        {"layer_norm_eps": 1e-6},
        EPSILON_OF_KERAS_HUB,
    ),
    (IMAGES, peers.vit, {"num_hidden_layers": -1}),
    (IMAGES, peers.vit, {"num_attention_heads": 5}, "query.weight has shape"),
    (IMAGES, peers.vit, {"image_size": 10**6}, "image_size=1000000, but 32 in"),
    (IMAGES, peers.vit, {"hidden_act": "relu"}),
    (IMAGES, peers.vit, {"layer_norm_eps": 10**400}, "must fit together"),
    (IMAGES, peers.dinov3, {"num_register_tokens": 4}),
    # First stages that KerasHub lacks.
    *(
        (IMAGES, lambda shape=shape: peers.resnet(*shape), {}, found)
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


@LONG_ELSEWHERE
def test_an_efficientnet_reads_other_sizes_if_it_pads_as_its_file_says(
    tmp_path,
):
    model = peers.efficientnet(32)
    model.save_pretrained(tmp_path)
    peer = next(p for p in peers.PYRAMIDS if p.name == "EfficientNet")
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
    "BertForPreTraining": peers.bert,
    "BertForMultipleChoice": peers.bert,
    "RobertaForQuestionAnswering": peers.roberta,
    "XLMRobertaForSequenceClassification": peers.xlm_roberta,
    "DistilBertForQuestionAnswering": peers.distilbert,
    "DistilBertForSequenceClassification": peers.distilbert,
    "ElectraForMaskedLM": peers.electra,
    "ElectraForMultipleChoice": peers.electra,
    "AlbertForMaskedLM": peers.albert,
    "AlbertForTokenClassification": peers.albert,
    "DebertaV2ForSequenceClassification": peers.deberta,
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


@LONG_ELSEWHERE
def test_trained_positions_are_saved(tmp_path):
    """DINOv2 has a second table, for the size of its input."""
    model = randomise(backbone(dino(2, num_layers=1), num_layers=1))
    name = "/interpolated_position_embeddings"
    (table,) = [w for w in model.weights if w.path.endswith(name)]
    table.assign(array(table) + 0.5)
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    assert_same_weights(copy, model)


@LONG_ELSEWHERE
def test_other_stored_positions_are_refused():
    other = dino(2, position_embedding_shape=(64, 64, 3))
    with pytest.raises(ValueError, match="`position_embedding_shape`.*64.*32"):
        backbone(other)


@LONG_ELSEWHERE
def test_texts_of_another_length_are_refused():
    body = backbone(*encoders("SigLIP"), num_layers=1)
    with pytest.raises(ValueError, match="`token_ids` must have 21 tokens"):
        body(features(tokens=TOKENS))


@LONG_ELSEWHERE
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


@LONG_ELSEWHERE
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


@LONG_ELSEWHERE
def test_frozen_weights_are_those_of_the_tower(tmp_path):
    """Both encoders of MetaCLIP 2 have weights of the same paths."""
    made = backbone(*encoders("MetaCLIP2"), num_layers=1)
    made.text_tower.trainable = False
    made.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    assert not copy.text_tower.trainable_weights
    assert len(copy.image_tower.trainable_weights) > 10
