"""The small shipped presets: recorded scores, sizes, and what they answer."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from exported_files import check_shipped
from keras_bridgetower_drawings.training.easy import (
    entailment as easy_vqa_entailment,
)
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import tiny_family
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import PRESETS

pytestmark = LONG_ELSEWHERE

PREFIX = "bridgetower_tiny_easy_"
DRAWINGS = pathlib.Path(kbt.__file__).parents[1] / "examples" / "drawings"
PICTURES = [DRAWINGS / "duck.png", DRAWINGS / "red_apple.png"]
# Questions of the short version of the VQA score.
PART = 1000
NAMES = ["pretrain", "mlm", "retrieval", "contrastive", "entailment"]
NAMES += ["nlvr2", "vqa"]


def folder_of(name):
    return pathlib.Path(registry.resolve(f"{PREFIX}{name}"))


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("easy_vqa")
    return load_scenes("test")


@pytest.mark.parametrize("name", NAMES)
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


def test_the_score_of_a_part_of_the_test_split(scenes):
    """Within three standard deviations of the score of the whole split."""
    data = dataclasses.replace(
        scenes.data,
        image_index=scenes.data.image_index[:PART],
        questions=scenes.data.questions[:PART],
        answers=scenes.data.answers[:PART],
    )
    record = json.loads((folder_of("vqa") / "training.json").read_text())
    share = record["test_scores"]["overall"] / 100
    bound = 3 * math.sqrt(share * (1 - share) / PART)
    part = dataclasses.replace(scenes, data=data)
    vqa = kbt.BridgeTowerVQA.from_preset(f"{PREFIX}vqa")
    found = tiny_family.score_questions(vqa, part)["overall"] / 100
    assert abs(found - share) <= bound


@pytest.mark.parametrize("name", ["emoji_vqa", "easy_vqa"])
def test_answers_without_keras_equal_it(name):
    questions = ["what color is it?", "is this an animal?"]
    given = {"images": PICTURES, "questions": questions, "top_k": 3}
    check_shipped(f"bridgetower_tiny_{name}", "answer", **given)


@pytest.mark.parametrize("name", ["emoji", "scenes", "easy"])
def test_scores_and_vectors_without_keras_equal_it(name):
    pairs = {"images": PICTURES, "texts": ["a red circle", "a duck"]}
    check_shipped(f"bridgetower_tiny_{name}_retrieval", "score", **pairs)
    for kind, rows in pairs.items():
        preset = f"bridgetower_tiny_{name}_contrastive"
        check_shipped(preset, "embed", **{kind: rows})
