"""Heads that a preset lacks, or that nothing has trained."""

import copy
import warnings

import keras
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import eager
from builders import long_but
from builders import one_layer_each
from builders import raw
from builders import retrieval
from builders import vqa

import keras_bridgetower as kbt

pytestmark = LONG_ELSEWHERE

NEW = "Newly initialized"
PICTURE = raw(1)[0]["images"][0]
REFUSED = r"`{}` reads the head {}, .* `fit`, or pass `random_heads=True`"


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    vqa(**one_layer_each()).save_to_preset(folder / "vqa")
    retrieval(**one_layer_each()).save_to_preset(folder / "retrieval")
    return folder


def masked_lm(presets, **kwargs):
    return kbt.BridgeTowerMaskedLM.from_preset(presets / "vqa", **kwargs)


def fill(task):
    return task.fill_mask(PICTURE, "is it <mask>?")


def refused(verb, head):
    return pytest.raises(ValueError, match=REFUSED.format(verb, head))


def by_fit(task, path):
    x, _ = raw(2)
    eager(task).fit(x, verbose=0)


def by_assignment(task, path):
    bias = task.heads["mlm"].decoder.bias
    bias.assign(array(bias) + 1)


LONG = [pytest.mark.slow] if keras.config.backend() != "torch" else []


@pytest.mark.filterwarnings(f"ignore:{NEW}")
@pytest.mark.parametrize(
    "train",
    [pytest.param(by_fit, marks=LONG), by_assignment],
    ids=lambda f: f.__name__,
)
def test_verbs_wait_for_training(presets, tmp_path, train):
    task = masked_lm(presets)
    with refused("fill_mask", "mlm"):
        fill(task)
    train(task, tmp_path)
    assert fill(task)


@pytest.mark.filterwarnings(f"ignore:{NEW}")
@FASTEST
def test_what_was_asked_for_answers(presets):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", NEW)
        assert fill(masked_lm(presets, random_heads=True))
        assert fill(masked_lm(presets, load_weights=False))


def by_preset(task, path):
    folder = path / f"preset {len([*path.iterdir()])}"
    task.save_to_preset(folder)
    return kbt.BridgeTowerMaskedLM.from_preset(folder)


def by_deepcopy(task, path):
    return copy.deepcopy(task)


def by_file(task, path):
    task.save(path / "task.keras")
    return keras.saving.load_model(path / "task.keras")


@pytest.mark.filterwarnings(f"ignore:{NEW}")
@pytest.mark.parametrize(
    "copied",
    long_but([by_preset, by_deepcopy, by_file], by_preset, by_file),
    ids=lambda f: f.__name__,
)
def test_copies_wait_for_training_too(presets, tmp_path, copied):
    task = masked_lm(presets)
    other = copied(task, tmp_path)
    with refused("fill_mask", "mlm"):
        fill(other)
    with refused("fill_mask", "mlm"):
        fill(copied(other, tmp_path))
    by_assignment(task, tmp_path)
    assert fill(copied(task, tmp_path)) == fill(task)
    # Training one is no training of another.
    with refused("fill_mask", "mlm"):
        fill(other)
    by_assignment(other, tmp_path)
    assert fill(other)


@pytest.mark.filterwarnings(f"ignore:{NEW}")
@FASTEST
def test_only_heads_that_a_verb_reads(presets):
    """Matching is loaded, contrast is new: a shortlist alone reads it."""
    task = kbt.BridgeTowerRetrieval.from_preset(
        presets / "retrieval", projection_dim=8
    )
    pictures, texts = [PICTURE, PICTURE], ["a dot", "a line"]
    task.score(pictures, texts)
    task.rank(pictures, texts, verbose=0)
    with refused("rank", "itc"):
        task.rank(pictures, texts, shortlist=1, verbose=0)
    other = kbt.BridgeTowerRetrieval.from_preset(presets / "vqa")
    for verb in ("score", "rank"):
        with refused(verb, "itm"):
            getattr(other, verb)(pictures, texts)
    contrastive = kbt.BridgeTowerContrastive.from_preset(presets / "vqa")
    with refused("embed", "itc"):
        contrastive.embed(texts="a dot")
