"""The small shipped presets: recorded scores, sizes, and what they answer."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from easy_world import captions
from easy_world import entailment as easy_vqa_entailment
from easy_world import pairs
from easy_world import pictures
from easy_world.scenes import load_scenes
from easy_world.training import train_tiny

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import PRESETS

pytestmark = LONG_ELSEWHERE

PREFIX = "bridgetower_tiny_easy_"
# Questions of the short version of the VQA score.
PART = 1000
# Scores on the test split that each preset must reach; without pictures the
# scores are far lower.
GOALS = {
    "pretrain": {"itm_accuracy": 95, "mlm_accuracy": 85},
    "mlm": {"mean": 85},
    "retrieval": {"RSUM": 487, "true or false caption": 90},
    "contrastive": {"RSUM": 487},
    "entailment": {"accuracy": 90},
    "nlvr2": {"accuracy": 80},
}


def folder_of(name):
    return pathlib.Path(registry.resolve(f"{PREFIX}{name}"))


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("easy_vqa")
    return load_scenes("test")


@pytest.mark.parametrize("name", GOALS)
def test_scores_and_size(name):
    folder = folder_of(name)
    record = json.loads((folder / "training.json").read_text())
    found, blind = record["test_scores"], record["blind_test_scores"]
    for kind, goal in GOALS[name].items():
        assert found[kind] >= goal > blind.get(kind, 0)
    page = (folder / "README.md").read_text()
    assert all(f"{score:.2f}" in page for score in found.values())
    files = (f for f in folder.rglob("*") if f.is_file())
    assert sum(f.stat().st_size for f in files) <= 3_000_000


@pytest.mark.parametrize("name", [*GOALS, "vqa"])
def test_preset_facts_are_true(name):
    known = PRESETS[f"{PREFIX}{name}"]
    (task,) = known.tasks
    cls = getattr(kbt, task)
    assert cls.presets[known.name] == known
    assert kbt.BridgeTowerBackbone.presets[known.name] == known
    # No warning: no head is new.
    model = cls.from_preset(known.name)
    assert model.count_params() == known.parameters
    assert tuple(model.head_values) == known.heads
    assert model.backbone.image_size == known.image_size
    folder = folder_of(name)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8e6
    sums = json.loads((folder / manifest.MANIFEST).read_text())["sha256"]
    names = {path.relative_to(folder).as_posix() for path in files}
    assert names == {*sums, manifest.MANIFEST}


def test_words_are_filled_in(scenes):
    mlm = kbt.BridgeTowerMaskedLM.from_preset(f"{PREFIX}mlm")
    made = captions.blanks(scenes)
    images = list(scenes.data.images[made.image_index[:64]])
    filled = mlm.fill_mask(images, made.texts[:64], batch_size=64)
    right = [
        masks[0][0][0].strip() == answer
        for (masks, _), answer in zip(filled, made.answers[:64], strict=True)
    ]
    assert np.mean(right) >= 0.85


def test_captions_are_matched(scenes):
    retrieval = kbt.BridgeTowerRetrieval.from_preset(f"{PREFIX}retrieval")
    made = captions.matches(scenes)
    x = {
        "images": scenes.data.images[made.image_index[:128]],
        "text": made.texts[:128],
    }
    logits = retrieval.predict(x, batch_size=128, verbose=0)
    assert (logits.argmax(-1) == made.labels[:128]).mean() >= 0.85


def test_captions_are_near_their_pictures(scenes):
    contrastive = kbt.BridgeTowerContrastive.from_preset(f"{PREFIX}contrastive")
    pool = captions.gallery(scenes)
    images = contrastive.embed(
        images=list(scenes.data.images[pool.pictures[:64]]), batch_size=64
    )
    texts = contrastive.embed(texts=pool.texts[: 5 * 64 : 5], batch_size=64)
    best = (texts @ images.T).argmax(-1)
    assert (best == np.arange(64)).mean() >= 0.85


def test_hypotheses_are_judged(scenes):
    entailment = kbt.BridgeTowerEntailment.from_preset(f"{PREFIX}entailment")
    made = easy_vqa_entailment.entailment(scenes)
    chosen = np.arange(0, len(made.labels), 25)
    judged = entailment.entail(
        list(made.images(scenes)[chosen]),
        [made.hypotheses[i] for i in chosen],
        batch_size=64,
    )
    labels = ("contradiction", "neutral", "entailment")
    expected = [labels[i] for i in made.labels[chosen]]
    right = [
        label == truth
        for (label, _), truth in zip(judged, expected, strict=True)
    ]
    # Blind: 66 %.
    assert np.mean(right) >= 0.85


def test_statements_are_compared(scenes):
    nlvr2 = kbt.BridgeTowerNLVR2.from_preset(f"{PREFIX}nlvr2")
    made = pairs.pairs(scenes)
    chosen = np.arange(0, len(made.labels), 17)
    left, right = np.moveaxis(
        scenes.data.images[made.image_index[chosen]], 1, 0
    )
    judged = nlvr2.compare(
        list(left),
        list(right),
        [made.sentences[i] for i in chosen],
        batch_size=64,
    )
    hits = [
        truth == bool(label)
        for (truth, _), label in zip(judged, made.labels[chosen], strict=True)
    ]
    # Blind: 69 %.
    assert np.mean(hits) >= 0.78


@pytest.fixture(scope="module")
def vqa():
    return kbt.BridgeTowerVQA.from_preset(f"{PREFIX}vqa")


@pytest.fixture(scope="module")
def recorded():
    record = json.loads((folder_of("vqa") / "training.json").read_text())
    return record["test_scores"]


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


def test_vqa_answers_depend_on_the_picture(vqa):
    assert vqa.answers == pictures.answer_list()
    test = pictures.load("test")
    shown = [pictures.attributes(image) for image in test.images[:32]]
    for question, name in (
        ("what color is the shape?", "colour"),
        ("what shape is in the image?", "shape"),
    ):
        answers = vqa.answer(list(test.images[:32]), [question] * 32)
        expected = [getattr(a, name) for a in shown]
        assert [ranked[0][0] for ranked in answers] == expected


def test_parts_of_a_preset_open_by_name(vqa):
    tokenizer = kbt.BridgeTowerTokenizer.from_preset(f"{PREFIX}vqa")
    converter = kbt.BridgeTowerImageConverter.from_preset(f"{PREFIX}vqa")
    picture = pictures.load("test").images[:1]
    text = ["what color is the shape?"]
    made = vqa.preprocessor({"images": picture, "text": text})
    np.testing.assert_array_equal(tokenizer(text), made["token_ids"])
    np.testing.assert_array_equal(converter(picture), made["images"])
    for cls in (kbt.BridgeTowerTokenizer, kbt.BridgeTowerImageConverter):
        with pytest.raises(ValueError, match="`preset` must be one of"):
            cls.from_preset("bridgetower_tiny_easy_vq")


def test_shifted_pictures_keep_their_attributes():
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
