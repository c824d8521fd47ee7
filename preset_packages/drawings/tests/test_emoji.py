"""The shipped emoji presets, asked as their users ask them."""

import numpy as np
import pytest
from builders import LONG_ELSEWHERE

import keras_bridgetower as kbt

PREFIX = "bridgetower_tiny_emoji_"
PICTURES = sorted({path for path, _ in kbt.first_examples()["pictures"]})
NAMES = [path.stem.replace("_", " ") for path in PICTURES]
KINDS = {
    "cake": "sweet",
    "dog": "mammal",
    "fire engine": "land vehicle",
    "hamburger": "dish",
    "octopus": "sea animal",
    "penguin": "bird",
    "rocket": "aircraft",
    "sailboat": "boat",
}


@pytest.fixture(scope="module")
def contrastive():
    return kbt.BridgeTowerContrastive.from_preset(PREFIX + "contrastive")


@pytest.fixture(scope="module")
def vqa():
    return kbt.BridgeTowerVQA.from_preset(PREFIX + "vqa")


@LONG_ELSEWHERE
def test_names_find_their_drawings(contrastive):
    texts = contrastive.embed(texts=[f"a drawing of a {n}" for n in NAMES])
    images = contrastive.embed(images=PICTURES)
    found = (texts @ images.T).argmax(1)
    assert (found == np.arange(len(NAMES))).sum() >= len(NAMES) - 1


def test_emoji_questions_are_answered(vqa):
    said = vqa.answer(PICTURES, ["what kind of thing is it?"] * len(PICTURES))
    kinds = {
        name: answers[0][0] for name, answers in zip(NAMES, said, strict=True)
    }
    assert {name: kinds[name] for name in KINDS} == KINDS


@LONG_ELSEWHERE
def test_texts_fit_their_drawings_and_no_others():
    task = kbt.BridgeTowerRetrieval.from_preset(PREFIX + "retrieval")
    texts = [f"a drawing of a {name}" for name in NAMES]
    own = task.score(PICTURES, texts)
    others = task.score(PICTURES, texts[1:] + texts[:1])
    assert (own > 0).sum() >= len(NAMES) - 2
    assert (others < 0).sum() >= len(NAMES) - 2


@LONG_ELSEWHERE
def test_blanks_are_filled_by_a_look_at_the_drawing():
    task = kbt.BridgeTowerMaskedLM.from_preset(PREFIX + "mlm")
    wanted = {
        "apple": "fruit",
        "dog": "animal",
        "cake": "dessert",
        "sailboat": "boat",
        "umbrella": "rain",
    }
    for name, word in wanted.items():
        picture = PICTURES[NAMES.index(name)]
        (masks, _) = task.fill_mask(picture, "a drawing of a <mask>", top_k=5)
        found = {said.strip() for said, _ in masks[0]}
        assert found & set(wanted.values()) == {word}
