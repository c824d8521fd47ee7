"""easy-VQA and what is derived from it: truth, draws, blind scores, words."""

import collections
import json
import pathlib

import numpy as np
import pytest
from builders import FASTEST
from digests import digest
from keras_bridgetower_drawings.training.easy import both_spellings
from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs as easy_vqa_pairs
from keras_bridgetower_drawings.training.easy import pictures
from keras_bridgetower_drawings.training.easy import vocabulary
from keras_bridgetower_drawings.training.easy.meaning import Statement
from keras_bridgetower_drawings.training.easy.meaning import claim
from keras_bridgetower_drawings.training.easy.meaning import judge
from keras_bridgetower_drawings.training.easy.scenes import SPLITS
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from keras_bridgetower_drawings.training.easy.scenes import moved

import keras_bridgetower as kbt
from keras_bridgetower.presets import registry

pytestmark = FASTEST
OLD = captions.TEMPLATES[0].format(
    size="small", colour="blue", shape="circle", position="east"
)


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("easy_vqa")
    return {split: load_scenes(split) for split in SPLITS}


def test_blind_scores(scenes):
    """The majority answer to each question, counted on all of training."""
    splits = {split: found.data for split, found in scenes.items()}
    seen = [{i.tobytes() for i in s.images} for s in splits.values()]
    # No picture is in two splits.
    assert len(set.union(*seen)) == sum(map(len, seen)) == 5000
    votes = collections.defaultdict(collections.Counter)
    for split in ("train", "validation"):
        told = splits[split]
        for question, answer in zip(told.questions, told.answers, strict=True):
            votes[question][answer] += 1
    any_question = sum(votes.values(), collections.Counter())
    right = collections.defaultdict(list)
    test = splits["test"]
    for question, answer in zip(test.questions, test.answers, strict=True):
        ((best, _),) = votes.get(question, any_question).most_common(1)
        for kind in ("overall", pictures.question_kind(answer)):
            right[kind].append(best == answer)
    for kind, score in pictures.BLIND_TEST_SCORES.items():
        assert 100 * np.mean(right[kind]) == pytest.approx(score, abs=0.011)


def varied_entailment(found):
    return entailment.varied_entailment(found, sentences=300)


def moved_boxes(found):
    shown = moved(found, 3)
    sums = shown.data.images.sum(axis=(1, 2, 3))
    return shown.values, shown.boxes, sums


@pytest.mark.parametrize(
    "make, drawn",
    [
        (captions.captions, "c34216fe"),
        (captions.matches, "a667026f"),
        (captions.blanks, "82e44495"),
        (captions.varied_captions, "f0a853db"),
        (varied_entailment, "2434979d"),
        (entailment.entailment, "de57dd45"),
        (easy_vqa_pairs.pairs, "e98e50df"),
        (moved_boxes, "9abb7dc8"),
    ],
)
def test_the_presets_were_trained_on_these_draws(scenes, make, drawn):
    assert digest(make(scenes["validation"])) == drawn


def test_truth_tables():
    """Kleene's tables of "and" and "not", written out."""
    # A red circle, whose color the veil hides: false, hidden and true claims.
    values = np.array([[1, 2, 0, 4]])
    says = [
        claim("size", "large"),
        claim("colour", "red"),
        claim("shape", "circle"),
    ]

    def truth(*claims, denied=False):
        statement = Statement("", claims, denied)
        return judge(statement, values, "no_colour")

    both = [[0, 0, 0], [0, 1, 1], [0, 1, 2]]
    for left in range(3):
        assert truth(says[left].denied()) == 2 - left
        for right in range(3):
            pair = says[left], says[right]
            assert truth(*pair) == both[left][right]
            assert truth(*pair, denied=True) == 2 - both[left][right]


@pytest.fixture(scope="module")
def folder():
    return pathlib.Path(registry.resolve("bridgetower_tiny_easy_pretrain"))


def test_old_ids_stay_and_new_words_are_one_token(folder):
    texts = ["It's at the upper left!", "a big, grey dot", "grey", "upper"]
    grown = vocabulary.with_more_words(
        kbt.BridgeTowerMaskedLM, folder, 3 * texts, 600, 24, rate=0.3
    )
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
