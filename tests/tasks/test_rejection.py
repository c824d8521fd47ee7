"""Calibrated scores, and answers that say what they do not know."""

import copy
import json
import shutil

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import asking
from builders import difference
from builders import one_layer_each
from builders import randomise
from builders import raw
from builders import retrieval
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets.errors import PresetError

pytestmark = LONG_ELSEWHERE

ROWS, _ = raw(4)
IMAGES, TEXTS = list(ROWS["images"]), ROWS["text"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "preset"
    vqa(**one_layer_each()).save_to_preset(folder)
    return folder


def small_vqa():
    return randomise(vqa(**one_layer_each()))


def logits_of(task):
    features = task.preprocessor(ROWS)
    return task.predict_features({k: array(x) for k, x in features.items()})


def between(scores):
    """A threshold that two of four scores reach."""
    low, high = np.sort(scores)[1:3]
    return {"kind": "energy", "threshold": float((low + high) / 2)}


def test_divided_logits():
    task = small_vqa()
    before, answers = logits_of(task), task.answer(IMAGES, TEXTS, top_k=4)
    task.divide_logits("vqa", 2.5)
    assert difference(logits_of(task), before / 2.5) < 1e-5
    for old, new in zip(answers, task.answer(IMAGES, TEXTS, 4), strict=True):
        assert [text for text, _ in new] == [text for text, _ in old]
        odds = [np.log(x / (1 - x)) for _, x in old]
        assert [x for _, x in new] == pytest.approx(
            [1 / (1 + np.exp(-x / 2.5)) for x in odds], abs=1e-5
        )


@pytest.mark.parametrize("adapted", [False, True])
def test_a_rule_knows_the_same_after_division(adapted, tmp_path):
    """Also after a second one, in a preset, and with an adapted head."""
    task = small_vqa()
    if adapted:
        last = task.heads["vqa"].output_dense
        last.enable_lora(2)
        for weight in last.weights:
            weight.assign(keras.random.normal(weight.shape, seed=1))
    logits = logits_of(task)
    scores = np.log(np.exp(logits.astype("float64")).sum(axis=1))
    task.rejection = between(scores)
    known = [one.known for one in task.answer(IMAGES, TEXTS)]
    assert sorted(known) == [False, False, True, True]
    task.divide_logits("vqa", 0.5)
    task.divide_logits("vqa", 8)
    assert difference(logits_of(task), logits / 4) < 1e-4
    assert [one.known for one in task.answer(IMAGES, TEXTS)] == known
    if not adapted:
        task.save_to_preset(tmp_path / "preset")
        opened = kbt.BridgeTowerVQA.from_preset(tmp_path / "preset")
        assert opened.rejection["temperature"] == 4
        assert [one.known for one in opened.answer(IMAGES, TEXTS)] == known


def test_divided_logits_of_other_heads():
    task = randomise(retrieval(**one_layer_each()))
    before = task.score(IMAGES, TEXTS)
    task.divide_logits("itm", 0.5)
    assert difference(task.score(IMAGES, TEXTS), before * 2) < 1e-5
    task = randomise(kbt.BridgeTowerMaskedLM(task.backbone))
    x = np.random.default_rng(0).normal(size=(1, 3, 16)).astype("float32")
    before = array(task.heads["mlm"](x))
    task.divide_logits("mlm", 4)
    assert difference(task.heads["mlm"](x), before / 4) < 1e-5


@FASTEST
# Keras says so of each layer without weights.
@pytest.mark.filterwarnings("ignore:Layer .* does not have a")
def test_logits_that_cannot_be_divided():
    task = vqa(**one_layer_each())
    for temperature in (0, -1.0, float("nan"), float("inf"), "2"):
        with pytest.raises(ValueError, match="`temperature` must be"):
            task.divide_logits("vqa", temperature)
    with pytest.raises(ValueError, match="`head` must be one of"):
        task.divide_logits("itm", 2.0)
    matching = kbt.BridgeTowerRetrieval(task.backbone, projection_dim=8)
    with pytest.raises(ValueError, match="`head` must have logits"):
        matching.divide_logits("itc", 2.0)
    task.quantize("int8")
    with pytest.raises(ValueError, match="`divide_logits` needs weights"):
        task.divide_logits("vqa", 2.0)


def test_answers_say_what_is_known():
    task = small_vqa()
    plain = task.answer(IMAGES, TEXTS, top_k=2)
    assert [one.known for one in plain] == [None] * 4
    assert "rejection" not in task.get_config()
    scores = np.log(np.exp(logits_of(task).astype("float64")).sum(axis=1))
    task.rejection = between(scores)
    told = task.answer(IMAGES, TEXTS, top_k=2)
    assert told == plain and json.dumps(told) == json.dumps(plain)
    expected = (scores >= task.rejection["threshold"]).tolist()
    assert [one.known for one in told] == expected
    assert sorted(expected) == [False, False, True, True]
    one = task.answer(IMAGES[0], TEXTS[0])
    assert one.known is expected[0] and one[0][0] == plain[0][0][0]
    rows = {"image": IMAGES, "text": TEXTS}
    rows = task.verbs[0].run(task, rows, top_k=2)
    assert [row["known"] for row in rows] == expected
    task.rejection = None
    assert task.answer(IMAGES[0], TEXTS[0]).known is None


def test_questions_have_their_own_answers_and_floors(tmp_path):
    """Alone, in lists, after a division, in presets and without Keras."""
    task = small_vqa()
    asked = ["Please is it RED?", "is it blue", "ist es rot?", "red or blue?"]
    rows = {"images": np.stack(IMAGES), "text": asked}
    made = {k: array(x) for k, x in task.preprocessor(rows).items()}
    logits = task.predict_features(made).astype("float64")
    answers = task.answers
    fit = np.array([[a in answers[1:3] for a in answers]] * 4)
    fit[2:] = ~fit[2:]
    scores = 1 / (1 + np.exp(-np.where(fit, logits, -np.inf)))
    best = [answers[i] for i in scores.argmax(1)]
    # Without the rule, others are best.
    assert best != [answers[i] for i in logits.argmax(1)]
    floor = np.median(scores.max(1))
    known = (scores.max(1) >= floor) & [True, True, False, True]
    task.rejection = asking(answers, floor)
    found = task.answer(IMAGES, asked, top_k=4)
    assert [one[0][0] for one in found] == best
    assert [one.known for one in found] == known.tolist()
    assert len(found[0]) == 2 and len(found[3]) == len(answers) - 2
    one = task.answer(IMAGES[3], asked[3])
    assert one.known is bool(known[3]) and one[0][0] == best[3]
    several = task.answer(IMAGES, asked[0])
    assert {a[0][0] for a in several} <= {*answers[1:3]}
    task.divide_logits("vqa", 2.0)
    again = task.answer(IMAGES, asked)
    assert [one.known for one in again] == known.tolist()
    task.save_to_preset(tmp_path / "preset")
    task.save(tmp_path / "task.keras")
    for other in (
        kbt.BridgeTowerVQA.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "task.keras"),
        copy.deepcopy(task),
    ):
        found = other.answer(IMAGES, asked)
        assert found == again and other.rejection == task.rejection
        assert [one.known for one in found] == known.tolist()


@FASTEST
@pytest.mark.filterwarnings("ignore:Newly initialized")
def test_another_rule_for_the_same_weights(saved):
    plain = kbt.BridgeTowerVQA.from_preset(saved)
    rule = {"kind": "energy", "threshold": -99.0}
    task = kbt.BridgeTowerVQA.from_preset(saved, rejection=rule)
    assert task.answer(IMAGES[0], TEXTS[0]).known is True
    assert difference(logits_of(task), logits_of(plain)) == 0
    # A new head has none.
    task = kbt.BridgeTowerVQA.from_preset(
        saved, answers=["a", "b"], rejection=rule
    )
    assert task.rejection is None


ENERGY = {"kind": "energy", "threshold": 1.0}
BAD = [
    ({"kind": "entropy", "threshold": 1.0}, "`kind` must be one of"),
    ({"kind": "energy", "threshold": "1"}, "`threshold` must be a fin"),
    ({"kind": "energy", "threshold": float("nan")}, "`threshold` must be"),
    ({"kind": "energy"}, "`rejection` must be a dict"),
    (ENERGY | {"temperature": 0}, "`temperature` must be a number above 0"),
    (ENERGY | {"x": 1}, "`rejection` must be a dict"),
    (asking(["a", "b", "c"], share="0.5"), "`questions` must be like"),
    (ENERGY | {"questions": {"sorts": []}}, "`questions` must be like"),
    (["energy", 1.0], "`rejection` must be a dict"),
]


@FASTEST
def test_bad_rules_are_one_error(saved, tmp_path):
    task = small_vqa()
    for rule, match in BAD:
        with pytest.raises(ValueError, match=match):
            kbt.BridgeTowerVQA(task.backbone, task.preprocessor, rejection=rule)
    folder = tmp_path / "preset"
    shutil.copytree(saved, folder)
    content = json.loads((folder / "task.json").read_text())
    for rule, match in (BAD[1], BAD[-1]):
        content["config"]["rejection"] = rule
        (folder / "task.json").write_text(json.dumps(content))
        manifest.write(folder)
        with pytest.raises(PresetError, match=rf"task.json(?s:.)*{match}"):
            kbt.BridgeTowerVQA.from_preset(folder)
