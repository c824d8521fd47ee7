"""Tasks on encoders of each kind: adapters, int8, freezing, recomputation.

One encoder of each kind runs each time: with its own attention, with a block
that is called twice, of pictures, and a contrastive pair.
"""

import functools

import builders
import keras
import keras_hub.models as hub
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import PATCH
from builders import SIDE
from builders import VOCABULARY
from builders import array
from builders import backbone
from builders import difference
from builders import eager
from builders import features
from builders import long_but
from builders import randomise
from builders import raw
from builders import run

import keras_bridgetower as kbt

SIZES = dict(num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Tokens of a text of a contrastive pair.
TOKENS = 20


def tokenizer(has_segments):
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] is it red blue what or ?".split()
    words += [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return kbt.BridgeTowerBertTokenizer(
        words, sequence_length=40, has_segments=has_segments
    )


# The class, its own arguments, and whether it has segments.
TEXTS = {
    "xlm_roberta": ("XLMRoberta", {}, False),
    "distilbert": ("DistilBert", {}, False),
    "electra": ("Electra", {"embedding_dim": 8}, True),
    "albert": ("Albert", {"embedding_dim": 8}, True),
    "deberta": ("DebertaV3", {"bucket_size": 4}, False),
}
PAIRS = {
    "SigLIP and CLIP": (hub.SigLIPVisionEncoder, hub.CLIPTextEncoder),
    "SigLIP": (hub.SigLIPVisionEncoder, hub.SigLIPTextEncoder),
    "MetaCLIP 2": (hub.MetaCLIP2VisionEncoder, hub.MetaCLIP2TextEncoder),
}


def text_encoder(name, **kwargs):
    cls, values, _ = TEXTS[name]
    words = {"vocab_size" if name == "electra" else "vocabulary_size": 70}
    lengths = {"max_sequence_length": 40, "dropout": 0.0}
    made = getattr(hub, f"{cls}Backbone")
    return made(**SIZES | lengths | values | words | kwargs)


def dino(version, **kwargs):
    values = dict(num_register_tokens=3, image_shape=(SIDE, SIDE, 3))
    if version == 2:
        values["position_embedding_shape"] = (SIDE, SIDE, 3)
    cls = getattr(hub, f"DINOV{version}Backbone")
    return cls(patch_size=PATCH, **SIZES | values | kwargs)


def encoders(pair):
    """Return new encoders, the second for texts of `TOKENS` ids."""
    image, text = PAIRS[pair]
    # SigLIP does not see the first one.
    positions = TOKENS - (text is hub.SigLIPTextEncoder)
    words = dict(vocabulary_size=VOCABULARY, embedding_dim=16)
    sizes = SIZES | {"num_layers": 1}
    return (
        image(patch_size=8, image_shape=(SIDE, SIDE, 3), **sizes),
        text(max_sequence_length=positions, **words, **sizes),
    )


def of_text(name, scale):
    _, _, has_segments = TEXTS[name]
    preprocessor = kbt.BridgeTowerVQAPreprocessor(
        tokenizer(has_segments), kbt.BridgeTowerImageConverter(SIDE), ANSWERS
    )
    body = backbone(text_encoder=text_encoder(name))
    return randomise(kbt.BridgeTowerVQA(body, preprocessor), scale)


def of_picture(version, scale):
    return randomise(builders.vqa(image_encoder=dino(version)), scale)


def of_pair(pair, scale, name="VQA", to_preprocess=(ANSWERS,), **kwargs):
    made = getattr(kbt, f"BridgeTower{name}Preprocessor")(
        builders.tokenizer(TOKENS),
        kbt.BridgeTowerImageConverter(SIDE),
        *to_preprocess,
    )
    body = backbone(*encoders(pair), num_layers=1)
    task = getattr(kbt, f"BridgeTower{name}")(body, made, **kwargs)
    return randomise(task, scale)


# What makes a task, whose weights have a scale.
CASES = {
    **{name: functools.partial(of_text, name) for name in TEXTS},
    "dinov2": functools.partial(of_picture, 2),
    "dinov3": functools.partial(of_picture, 3),
    **{pair: functools.partial(of_pair, pair) for pair in PAIRS},
}
QUICK = ("albert", "deberta", "dinov3", "SigLIP and CLIP")
SOME = pytest.mark.parametrize("case", long_but(CASES, *QUICK))
# DINOv3 has other names of its projections.
PROJECTIONS = {"query", "value", "q_proj", "v_proj"}


def inputs(model, case):
    return features(model, tokens=TOKENS if case in PAIRS else 6)


@FASTEST
@SOME
def test_adapters_change_the_outputs_and_are_saved(case, tmp_path):
    model = CASES[case](0.2).backbone
    start, x = model.get_weights(), inputs(model, case)
    before = run(model, x)
    model.enable_lora(2)
    trained = {id(w) for w in model.trainable_weights}
    for tower in (model.image_tower, model.text_tower):
        paths = [w.path for w in tower.weights if id(w) in trained]
        layers = {path.split("/")[-2] for path in paths}
        assert len(layers) == 2 and layers <= PROJECTIONS, paths
    for weight in model.trainable_weights:
        weight.assign(array(weight) + 0.1)
    changed = run(model, x)
    assert difference(before["text"], changed["text"]) > 1e-3
    assert difference(before["image"], changed["image"]) > 1e-3
    model.save_lora_weights(tmp_path / "mine.lora.h5")
    copy = CASES[case](0.2).backbone
    copy.set_weights(start)
    copy.load_lora_weights(tmp_path / "mine.lora.h5")
    assert difference(run(copy, x), changed) <= 1e-5


@FASTEST
@SOME
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_frozen_towers_do_not_move_and_int8_is_saved(case, tmp_path):
    task = CASES[case](0.05)
    towers = task.backbone.image_tower, task.backbone.text_tower
    for tower in towers:
        tower.trainable = False
    frozen = [w for tower in towers for w in tower.weights]
    before = [array(w) for w in frozen]
    eager(task).fit(*raw(), epochs=1, verbose=0)
    for weight, value in zip(frozen, before, strict=True):
        assert difference(weight, value) == 0
    x = inputs(task.backbone, case)
    before = run(task, x)
    task.quantize("int8")
    after = run(task, x)
    assert 0 < difference(before, after) <= 0.1 * np.abs(array(before)).max()
    task.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerVQA.from_preset(tmp_path / "preset")
    assert difference(run(copy, x), after) == 0


@FASTEST
@SOME
def test_recomputed_blocks_give_the_same_step(case):
    def stepped(prepare):
        keras.utils.set_random_seed(0)
        task = CASES[case](0.2)
        for tower in (task.backbone.image_tower, task.backbone.text_tower):
            # ALBERT calls one block twice.
            shared = case == "albert" and tower is task.backbone.text_tower
            layers = 1 if shared or case in PAIRS else tower.encoder.num_layers
            assert len(tower.blocks) == layers
        prepare(task.backbone)
        task.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        task.fit(*raw(), epochs=1, shuffle=False, verbose=0)
        return task

    plain = stepped(lambda model: None)
    made = stepped(lambda model: model.checkpoint_activations())
    for a, b in zip(plain.weights, made.weights, strict=True):
        assert difference(a, b) <= 1e-6


@FASTEST
@pytest.mark.parametrize("name", long_but(TEXTS, "albert", "deberta"))
def test_ids_beyond_the_vocabulary_are_rejected(name):
    made = CASES[name](0.2)
    x = made.preprocessor(raw(2)[0])
    x["token_ids"][0, 1] = 70
    with pytest.raises(ValueError, match="`token_ids` must hold integers"):
        made(x)


@pytest.mark.parametrize("name", TEXTS)
@builders.LONG_ELSEWHERE
def test_half_precision(name):
    half = {"dtype": "mixed_bfloat16"}
    model = backbone(builders.clip(**half), text_encoder(name, **half), **half)
    out = run(model, features(model))
    assert all(np.isfinite(x.astype("float32")).all() for x in out.values())


@pytest.mark.parametrize("pair", PAIRS)
@builders.LONG_ELSEWHERE
def test_embeddings_differ_for_every_text_and_picture(pair):
    """Row 0 of a causal encoder would be the same for all texts."""
    made = of_pair(pair, 0.2, "Contrastive", (), projection_dim=8)
    eager(made)
    x, _ = raw(4)
    for found in (made.embed(texts=x["text"]), made.embed(list(x["images"]))):
        rows = array(found)
        apart = np.linalg.norm(rows[:, None] - rows, axis=-1)
        assert (apart + np.eye(4)).min() > 1e-3
