"""The shipped emoji presets, asked as their users ask them."""

import pathlib

import numpy as np
import pytest

import keras_bridgetower as kbt

PREFIX = "bridgetower_tiny_emoji_"
PICTURES = sorted(
    (pathlib.Path(kbt.__file__).parent / "demo/pictures").glob("*.png")
)
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


def test_names_find_their_drawings(contrastive):
    texts = contrastive.embed(texts=[f"a drawing of a {n}" for n in NAMES])
    images = contrastive.embed(images=PICTURES)
    found = (texts @ images.T).argmax(1)
    assert (found == np.arange(len(NAMES))).sum() >= len(NAMES) - 1


def test_questions(vqa):
    said = vqa.answer(PICTURES, ["what kind of thing is it?"] * len(PICTURES))
    kinds = {
        name: answers[0][0] for name, answers in zip(NAMES, said, strict=True)
    }
    assert {name: kinds[name] for name in KINDS} == KINDS


def test_presets_that_differ_by_their_head_share_a_folder(contrastive, vqa):
    assert contrastive.backbone.count_params() == vqa.backbone.count_params()
    for mine, shared in zip(
        contrastive.backbone.weights, vqa.backbone.weights, strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), shared.numpy())
