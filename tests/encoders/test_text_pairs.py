"""Text encoders after RoBERTa and BERT: adapters, int8, freezing, bfloat16."""

import adapted
import keras_hub
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import SIDE
from builders import backbone
from builders import clip
from builders import features
from builders import long_but
from builders import randomise
from builders import raw
from builders import run

import keras_bridgetower as kbt

SIZES = dict(
    num_layers=2,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=40,
    dropout=0.0,
)
LETTERS = "abcdefghijklmnopqrstuvwxyz?"


def unigram(special, **kwargs):
    """A tokenizer of single letters, as SentencePiece writes them."""
    pieces = [[token, 0.0] for token in special]
    pieces += [[piece, -1.0] for piece in ("▁", *LETTERS)]
    spaces = dict(type="Metaspace", replacement="▁", prepend_scheme="always")
    model = dict(type="Unigram", unk_id=special.index(special[3]), vocab=pieces)
    values = {"model": model, "pre_tokenizer": {**spaces, "split": True}}
    return kbt.BridgeTowerJsonTokenizer(
        values, special, sequence_length=40, **kwargs
    )


def wordpiece(has_segments):
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] is it red blue what or ?".split()
    words += [*LETTERS[:-1], *(f"##{letter}" for letter in LETTERS[:-1])]
    return kbt.BridgeTowerBertTokenizer(
        words, sequence_length=40, has_segments=has_segments
    )


OF_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
OF_BERT = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
# The class, its own arguments, its tokenizer.
ENCODERS = {
    "xlm_roberta": ("XLMRoberta", {}, lambda: unigram(OF_ROBERTA)),
    "distilbert": ("DistilBert", {}, lambda: wordpiece(False)),
    "electra": ("Electra", {"embedding_dim": 8}, lambda: wordpiece(True)),
    "albert": (
        "Albert",
        {"embedding_dim": 8},
        lambda: unigram(OF_BERT, has_segments=True),
    ),
    "deberta": ("DebertaV3", {"bucket_size": 4}, lambda: unigram(OF_BERT)),
}
ALL = pytest.mark.parametrize("name", ENCODERS)
# One with a block that it calls twice, and one with its own attention.
SOME = pytest.mark.parametrize("name", long_but(ENCODERS, "albert", "deberta"))


def encoder(name, **kwargs):
    cls, values, _ = ENCODERS[name]
    words = {"vocab_size" if name == "electra" else "vocabulary_size": 70}
    made = getattr(keras_hub.models, f"{cls}Backbone")
    return made(**SIZES | values | words | kwargs)


def vqa(name):
    _, _, tokenizer = ENCODERS[name]
    preprocessor = kbt.BridgeTowerVQAPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), ANSWERS
    )
    layers = dict(image_encoder=clip(), text_encoder=encoder(name))
    return randomise(kbt.BridgeTowerVQA(backbone(**layers), preprocessor))


@FASTEST
@SOME
def test_ids_beyond_the_vocabulary_are_rejected(name):
    made = vqa(name)
    inputs = made.preprocessor(raw(2)[0])
    inputs["token_ids"][0, 1] = 70
    with pytest.raises(ValueError, match="`token_ids` must hold integers"):
        made(inputs)


@FASTEST
@SOME
def test_adapters(name, tmp_path):
    def make():
        return randomise(backbone(text_encoder=encoder(name)))

    x = features(make())
    adapted.check_adapters(
        make, x, "text", "query", lambda model: model.text_encoder, tmp_path
    )


@FASTEST
@SOME
def test_quantized(name, tmp_path):
    made = randomise(vqa(name), scale=0.05)
    x = features(made.backbone)
    adapted.check_quantized(made, x, tmp_path / "preset")


@FASTEST
@SOME
def test_a_frozen_tower_does_not_move(name):
    made = vqa(name)
    adapted.check_frozen(made, [made.backbone.text_tower])


@FASTEST
@SOME
def test_recomputed_blocks_give_the_same_step(name):
    def make():
        made = vqa(name)
        # ALBERT calls one block twice.
        blocks = {"albert": 1}.get(name, 2)
        assert len(made.backbone.text_tower.blocks) == blocks
        return made

    adapted.check_recomputed(make)


@LONG_ELSEWHERE
@ALL
def test_half_precision(name):
    dtype = "mixed_bfloat16"
    model = backbone(clip(dtype=dtype), encoder(name, dtype=dtype), dtype=dtype)
    out = run(model, features(model))
    assert all(np.isfinite(x.astype("float32")).all() for x in out.values())
