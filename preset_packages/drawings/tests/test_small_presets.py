"""The small shipped presets: recorded scores, sizes, and what they answer."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import long_but
from exported_files import check_shipped
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import tiny_family
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from keras_bridgetower_drawings.training.scenes import release

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
EASY = ["pretrain", "mlm", "retrieval", "contrastive", "entailment"]
NAMES = [f"{PREFIX}{name}" for name in (*EASY, "nlvr2", "vqa")]
NAMES += [release.NAME, release.VECTORS]


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("easy_vqa")
    return load_scenes("test")


@pytest.mark.parametrize("name", NAMES)
def test_preset_facts_are_true(name):
    known = PRESETS[name]
    (task,) = known.tasks
    cls = getattr(kbt, task)
    assert cls.presets[name] == known
    assert kbt.BridgeTowerBackbone.presets[name] == known
    # No warning: no head is new.
    model = cls.from_preset(name)
    assert model.count_params() == known.parameters
    assert tuple(model.head_values) == known.heads
    assert model.backbone.image_size == known.image_size
    folder = pathlib.Path(registry.resolve(name))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    sums = json.loads((folder / manifest.MANIFEST).read_text())["sha256"]
    names = {path.relative_to(folder).as_posix() for path in files}
    assert names == {*sums, manifest.MANIFEST}
    # Reranking is on where lists of validation gain by it.
    if known.path.name == release.NAME:
        scores = json.loads((folder / "training.json").read_text())["scores"]
        gain = scores["validation"]["lists"]["vectors"]["the fusion has more"]
        gains = float(gain.split("(")[1].split()[0]) > 0
        assert known.reranks == ("itm" in known.heads and gains)


def entailed(scenes):
    """Return the predicted and the true label of each hypothesis."""
    made = entailment.entailment(scenes)
    rows = np.arange(0, len(made.labels), 25)
    said = [made.hypotheses[i] for i in rows]
    task = kbt.BridgeTowerEntailment.from_preset(f"{PREFIX}entailment")
    judged = task.entail(list(made.images(scenes)[rows]), said, batch_size=64)
    labels = ("contradiction", "neutral", "entailment")
    return [labels.index(label) for label, _ in judged], made.labels[rows]


def compared(scenes):
    """Return the predicted and the true label of statements on two pictures."""
    made = pairs.pairs(scenes)
    rows = np.arange(0, len(made.labels), 17)
    shown = scenes.data.images[made.image_index[rows]]
    said = [made.sentences[i] for i in rows]
    task = kbt.BridgeTowerNLVR2.from_preset(f"{PREFIX}nlvr2")
    judged = task.compare(*map(list, shown.swapaxes(0, 1)), said, batch_size=64)
    return [truth for truth, _ in judged], made.labels[rows]


# Blind, 66 % and 69 % are right.
@pytest.mark.parametrize("judge, least", [(entailed, 0.85), (compared, 0.78)])
def test_statements_are_judged(judge, least, scenes):
    judged, labels = judge(scenes)
    assert np.mean(np.equal(judged, labels)) >= least


def test_the_score_of_a_part_of_the_test_split(scenes):
    """Within three standard deviations of the score of the whole split."""
    data = dataclasses.replace(
        scenes.data,
        image_index=scenes.data.image_index[:PART],
        questions=scenes.data.questions[:PART],
        answers=scenes.data.answers[:PART],
    )
    record = json.loads(
        (PRESETS[f"{PREFIX}vqa"].path / "training.json").read_text()
    )
    share = record["test_scores"]["overall"] / 100
    bound = 3 * math.sqrt(share * (1 - share) / PART)
    part = dataclasses.replace(scenes, data=data)
    vqa = kbt.BridgeTowerVQA.from_preset(f"{PREFIX}vqa")
    found = tiny_family.score_questions(vqa, part)["overall"] / 100
    assert abs(found - share) <= bound


RED = {"images": PICTURES, "texts": ["a red circle", "a duck"]}
ASKED = {"images": PICTURES, "questions": ["what color is it?", "is it red?"]}
SHIPPED = {
    "vqa": ("answer", ASKED | {"top_k": 3}),
    "retrieval": ("score", RED),
    "contrastive": ("embed", *({kind: rows} for kind, rows in RED.items())),
}


# By the presets that commands open first, and the others in the long version.
@pytest.mark.parametrize("family", long_but(("emoji", "easy"), "emoji"))
@pytest.mark.parametrize("task", SHIPPED)
def test_what_is_shipped_without_keras_equals_it(family, task):
    check_shipped(f"bridgetower_tiny_{family}_{task}", *SHIPPED[task])


def test_shipped_scenes_equal_those_of_keras():
    check_shipped(release.NAME, *SHIPPED["retrieval"])
    check_shipped(release.VECTORS, *SHIPPED["contrastive"])


EMOJI = "bridgetower_tiny_emoji_"
SHOWN = sorted({path for path, _ in kbt.first_examples()["pictures"]})
DRAWN = [path.stem.replace("_", " ") for path in SHOWN]
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


def test_names_find_their_drawings():
    contrastive = kbt.BridgeTowerContrastive.from_preset(EMOJI + "contrastive")
    texts = contrastive.embed(texts=[f"a drawing of a {n}" for n in DRAWN])
    images = contrastive.embed(images=SHOWN)
    found = (texts @ images.T).argmax(1)
    assert (found == np.arange(len(DRAWN))).sum() >= len(DRAWN) - 1


def test_emoji_questions_are_answered():
    vqa = kbt.BridgeTowerVQA.from_preset(EMOJI + "vqa")
    shown = [SHOWN[DRAWN.index(name)] for name in KINDS]
    said = vqa.answer(shown, ["what kind of thing is it?"] * len(shown))
    assert [answers[0][0] for answers in said] == list(KINDS.values())


def test_texts_fit_their_drawings_and_no_others():
    task = kbt.BridgeTowerRetrieval.from_preset(EMOJI + "retrieval")
    texts = [f"a drawing of a {name}" for name in DRAWN]
    own = task.score(SHOWN, texts)
    others = task.score(SHOWN, texts[1:] + texts[:1])
    assert (own > 0).sum() >= len(DRAWN) - 2
    assert (others < 0).sum() >= len(DRAWN) - 2


def test_blanks_are_filled_by_a_look_at_the_drawing():
    task = kbt.BridgeTowerMaskedLM.from_preset(EMOJI + "mlm")
    wanted = {
        "apple": "fruit",
        "dog": "animal",
        "cake": "dessert",
        "sailboat": "boat",
        "umbrella": "rain",
    }
    for name, word in wanted.items():
        picture = SHOWN[DRAWN.index(name)]
        (masks, _) = task.fill_mask(picture, "a drawing of a <mask>", top_k=5)
        found = {said.strip() for said, _ in masks[0]}
        assert found & set(wanted.values()) == {word}
