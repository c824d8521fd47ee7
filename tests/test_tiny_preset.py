"""The shipped preset: its score, its size, its page."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from easy_world import pictures
from easy_world.training import train_tiny

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry

pytestmark = LONG_ELSEWHERE

NAME = "bridgetower_tiny_easy_vqa"
# Questions of the short version of its score.
PART = 1000


@pytest.fixture(scope="module")
def vqa():
    return kbt.BridgeTowerVQA.from_preset(NAME)


@pytest.fixture(scope="module")
def recorded():
    folder = pathlib.Path(registry.resolve(NAME))
    return json.loads((folder / "training.json").read_text())["test_scores"]


@pytest.mark.slow
def test_the_score_of_the_official_test_split(vqa, recorded):
    assert recorded["overall"] >= 99.0 and recorded["yes/no"] >= 99.0
    found = train_tiny.scores(vqa, pictures.load("test"))
    for kind, score in recorded.items():
        assert found[kind] == pytest.approx(score, abs=0.1)


def test_the_score_of_a_part_of_the_test_split(vqa, recorded):
    """Within three standard deviations of the score of the whole split."""
    test = pictures.load("test")
    part = dataclasses.replace(
        test,
        image_index=test.image_index[:PART],
        questions=test.questions[:PART],
        answers=test.answers[:PART],
    )
    share = recorded["overall"] / 100
    bound = 3 * math.sqrt(share * (1 - share) / PART)
    found = train_tiny.scores(vqa, part)["overall"] / 100
    assert abs(found - share) <= bound


def test_it_sees(vqa):
    """The same questions about other pictures get other answers."""
    test = pictures.load("test")
    shown = [pictures.attributes(image) for image in test.images[:32]]
    for question, name in (
        ("what color is the shape?", "colour"),
        ("what shape is in the image?", "shape"),
    ):
        answers = vqa.answer(list(test.images[:32]), [question] * 32)
        expected = [getattr(a, name) for a in shown]
        assert [ranked[0][0] for ranked in answers] == expected


def test_what_is_known_about_it_is_true(vqa):
    preset = kbt.BridgeTowerVQA.presets[NAME]
    assert preset == kbt.BridgeTowerBackbone.presets[NAME]
    assert preset.parameters == vqa.count_params()
    assert preset.image_size == vqa.backbone.image_size
    assert preset.tasks == (type(vqa).__name__,)
    assert preset.heads == tuple(vqa.heads)
    assert vqa.answers == pictures.answer_list()
    folder = pathlib.Path(registry.resolve(NAME))
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert size <= 8e6
    sums = json.loads((folder / manifest.MANIFEST).read_text())
    files = {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != manifest.MANIFEST
    }
    assert set(sums["sha256"]) == files


def test_its_parts_open_by_name(vqa):
    tokenizer = kbt.BridgeTowerTokenizer.from_preset(NAME)
    converter = kbt.BridgeTowerImageConverter.from_preset(NAME)
    picture = pictures.load("test").images[:1]
    text = ["what color is the shape?"]
    made = vqa.preprocessor({"images": picture, "text": text})
    np.testing.assert_array_equal(tokenizer(text), made["token_ids"])
    np.testing.assert_array_equal(converter(picture), made["images"])
    for cls in (kbt.BridgeTowerTokenizer, kbt.BridgeTowerImageConverter):
        with pytest.raises(ValueError, match="`preset` must be one of"):
            cls.from_preset("bridgetower_tiny_easy_vq")


def test_moved_pictures_stay_true():
    """The augmentation moves a shape without cutting or changing it."""
    images = pictures.load("validation").images[:40]
    before = [pictures.attributes(image) for image in images]
    boxes = np.array([a.box for a in before], "int32")
    moved = pictures.shift(images, boxes).numpy()
    after = [pictures.attributes(image) for image in moved]
    for a, b in zip(before, after, strict=True):
        assert (a.shape, a.colour) == (b.shape, b.colour)
        for axis in (0, 1):
            assert (
                a.box[axis + 2] - a.box[axis] == b.box[axis + 2] - b.box[axis]
            )
    assert len({b.box[:2] for b in after}) > 30
    assert (
        np.sort(moved.reshape(40, -1)) == np.sort(images.reshape(40, -1))
    ).all()
