"""A tiny preset with more words: what it knew stays, new words are tokens."""

import json
import pathlib

import numpy as np
import pytest
from builders import FASTEST
from keras_bridgetower_drawings.training.easy import both_spellings
from keras_bridgetower_drawings.training.easy import vocabulary
from keras_bridgetower_drawings.training.easy.captions import TEMPLATES

import keras_bridgetower as kbt
from keras_bridgetower.presets import registry

pytestmark = FASTEST

START = "bridgetower_tiny_easy_pretrain"
TEXTS = ["It's at the upper left!", "a big, grey dot", "grey", "upper"] * 3
OLD = TEMPLATES[0].format(
    size="small", colour="blue", shape="circle", position="east"
)


@pytest.fixture(scope="module")
def folder():
    return pathlib.Path(registry.resolve(START))


@pytest.fixture(scope="module")
def grown(folder):
    return vocabulary.with_more_words(
        kbt.BridgeTowerMaskedLM, folder, TEXTS, 600, 24, rate=0.3
    )


def test_old_ids_stay_and_new_words_are_one_token(folder, grown):
    assets = folder / "assets" / "tokenizer"
    old = json.loads((assets / "vocabulary.json").read_text())
    new = grown.preprocessor.tokenizer
    assert all(new.token_to_id(token) == i for token, i in old.items())
    # <s>, the pieces, </s>, and nothing else.
    for text, pieces in ((" upper", 1), (" grey", 1), ("grey upper", 2)):
        assert (new(text) != new.pad_token_id).sum() == pieces + 2
    # All pairs were merged before 600 tokens were reached.
    assert len(old) < new.vocabulary_size() < 600
    before = kbt.BridgeTowerTokenizer(
        str(assets / "vocabulary.json"), str(assets / "merges.txt"), 24
    )
    np.testing.assert_array_equal(before(OLD), new(OLD))


def test_the_rarer_spelling_becomes_a_token_like_the_other(folder):
    old, old_merges = vocabulary.read(folder)
    for texts, wanted in (
        (["a gray dot, center"], {"\u0120grey": "\u0120gray"}),
        (["a grey dot"] * 2 + ["a gray dot"], {"\u0120gray": "\u0120grey"}),
        # Here they differ by "c" and "k", which other words have.
        (["Disk", "pink"], {}),
    ):
        tokens, merges, alike = both_spellings.add_spellings(
            old, old_merges, texts
        )
        assert alike.items() >= wanted.items() and bool(alike) == bool(wanted)
        spell = vocabulary.model(tokens, merges)
        for new, known in alike.items():
            assert spell(new) == [new] and spell(known) == [known]
        before = vocabulary.model(old, old_merges)
        assert all(spell(w) == before(w) for w in vocabulary.words([OLD]))


def test_both_spellings_of_a_text_get_the_same_logits(folder):
    old = kbt.BridgeTowerMaskedLM.from_preset(folder)
    new = both_spellings.with_both_spellings(old, folder, ["Gray dot"])
    image = np.full((64, 64, 3), 240, "uint8")
    logits = {}
    for task, color in ((old, "Gray"), (new, "Gray"), (new, "Grey")):
        text = f"{color} is a small <mask> in the east."
        features, _ = task.preprocessor.text_with_blanks([text])
        features["images"] = task.preprocessor.image_converter(image[None])
        logits[task, color] = task.predict_features(features)[0, 0]
    np.testing.assert_array_equal(logits[new, "Grey"], logits[new, "Gray"])
    count = old.preprocessor.tokenizer.vocabulary_size()
    found = logits[new, "Gray"]
    np.testing.assert_allclose(found[:count], logits[old, "Gray"], atol=1e-5)
    # A new token fills no blank.
    assert len(found) > count and found[count:].max() < found.max() - 5


def test_the_most_frequent_pair_is_merged_first():
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abc"]
    old = {token: i for i, token in enumerate(letters)}
    # "bc" occurs four times, "ab" three, then "a" with "bc" three.
    texts = ["abc", "abc", "abc", "bc"]
    tokens, merges = vocabulary.add_merges(old, [], texts, 9)
    assert merges == ["b c"] and tokens == {**old, "bc": 8}
    tokens, merges = vocabulary.add_merges(old, [], texts, 99)
    assert merges == ["b c", "a bc"] and tokens["abc"] == 9
