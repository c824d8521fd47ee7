"""Rankings: the scores of all pairs, cheaply, within bounds, and resumed."""

import itertools
import re
import types

import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import difference
from builders import one_layer_each
from builders import randomise
from builders import retrieval
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.backend import compiled
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.tasks import ranking
from keras_bridgetower.tasks.inference import Forward

pytestmark = LONG_ELSEWHERE

TEXTS = ["a red one", "blue", "is it?", "x y z", "q", "hello there", "w"]
KEY = "ranking.json"
IMAGES = list(
    np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3)).astype("uint8")
)


@pytest.fixture(scope="module")
def task():
    """A task that ranks and is not changed."""
    preprocessor = kbt.BridgeTowerRetrievalPreprocessor(
        tokenizer(20), kbt.BridgeTowerImageConverter(32), "hard_negatives"
    )
    return randomise(
        kbt.BridgeTowerRetrieval(
            backbone(), preprocessor, "hard_negatives", 8, "three_way"
        )
    )


def ranked(model, images=IMAGES, texts=TEXTS, batch_size=4, **kwargs):
    return model.rank(images, texts, batch_size=batch_size, verbose=0, **kwargs)


def blocks(model, pictures, texts, batch_size, max_memory):
    """The sizes of a ranking's blocks."""
    items = (types.SimpleNamespace(count=n) for n in (pictures, texts))
    return ranking.Blocks(model, *items, batch_size, max_memory)


def memory(model, rows, batch_size=4):
    """Bytes for so many rows of text at a time, and for their work.

    Four rows are two pictures and two texts.
    """
    with pytest.raises(ValueError, match="at least") as error:
        blocks(model, 1, 1, batch_size, 0)
    least = int(re.search(r"at least (\d+)", str(error.value))[1])
    # Two states of float32 for each row: 2 taps of 20 tokens or 17 patches.
    return least + 8 * 2 * 16 * (20 * (rows - 1) - 17)


@pytest.fixture(scope="module")
def scores(task):
    """The scores of every pair by `score`."""
    return scores_of(task)


def scores_of(task):
    pairs = itertools.product(IMAGES, TEXTS)
    return task.score(*map(list, zip(*pairs, strict=True))).reshape(5, 7)


def test_rank_is_the_score_of_every_pair(task, scores):
    found = ranked(task)
    assert found.shape == (5, 7) and found.dtype == np.float32
    assert difference(found, scores) <= 1e-5
    # The same where blocks are small and texts wait in a file.
    made = blocks(task, 5, 7, 4, memory(task, 4))
    assert (made.block_pictures, made.block_texts) == (2, 2)
    assert not made.all_texts
    found = ranked(task, max_memory=memory(task, 4))
    assert difference(found, scores) <= 1e-5
    assert ranked(task, IMAGES[0], TEXTS[1]).shape == (1, 1)


def test_states_of_pictures_give_the_same_scores(task, scores):
    states = task.image_states(IMAGES, batch_size=2)
    assert states.shape == (5,) and states.read().shape == (5, 17, 2 * 16)
    one = task.image_states(IMAGES[0])
    assert difference(one.read(), states[:1].read()) <= 1e-6
    # The heads of a contrastive task on the same backbone.
    contrastive = kbt.BridgeTowerContrastive(
        task.backbone, task.preprocessor, projection_dim=8
    )
    contrastive.new_heads.restore({})
    vectors = contrastive.embed(states)
    assert difference(vectors, contrastive.embed(IMAGES)) <= 1e-6
    predicted = task.predict({"images": states, "text": TEXTS[:5]}, verbose=0)
    assert difference(match_scores(predicted), scores.diagonal()) <= 1e-5
    other = retrieval()
    with pytest.raises(ValueError, match="differs in .*'weights'"):
        other.score(states, TEXTS[:5])
    # The tower is trained after its states were computed.
    own = other.image_states(IMAGES)
    other.backbone.image_tower.weights[0].assign_add(
        keras.ops.ones_like(other.backbone.image_tower.weights[0])
    )
    with pytest.raises(ValueError, match="differs in .*'weights'"):
        other.score_states(own, TEXTS[0])


def test_top_matches(task, scores):
    found = ranked(task, top_k=2)
    for rows, table in ((found.images, scores.T), (found.texts, scores)):
        for best, row in zip(rows, table, strict=True):
            order = np.argsort(-row)[:2]
            assert [i for i, _ in best] == order.tolist()
            logits = [logit for _, logit in best]
            np.testing.assert_allclose(logits, row[order], atol=1e-5)
    # More than there are, and what a shortlist left out.
    found = ranked(task, top_k=9, shortlist=1)
    assert sum(map(len, found.texts)) == sum(map(len, found.images)) < 35


def protocol(scores, images, texts, k):
    """The authors' evaluation, item by item, on the same logits."""
    near = images @ texts.T
    by_image, by_text = (np.full(scores.shape, -100.0) for _ in range(2))
    for i in range(len(images)):
        for t in sorted(range(len(texts)), key=lambda t: -near[i, t])[:k]:
            by_image[i, t] = scores[i, t]
    for t in range(len(texts)):
        for i in sorted(range(len(images)), key=lambda i: -near[i, t])[:k]:
            by_text[i, t] = scores[i, t]
    return np.maximum(by_image, by_text)


def test_shortlist(task, scores, monkeypatch):
    # As where similarities are sorted in pieces.
    monkeypatch.setattr(ranking, "_SORTED", 14)
    x = task.preprocessor({"images": IMAGES + IMAGES[:2], "text": TEXTS})
    text = {k: x[k] for k in task.backbone.text_tower.input}
    # By the layers, not by what the ranking compiles.
    text = task.backbone.text_tower.predict(text, verbose=0)
    image = task.backbone.image_tower.predict(x["images"][:5], verbose=0)
    projected = task.backbone.fusion.project_image([array(image[-1])])
    unit = task.heads["itc"](
        {"text": array(text[-1])[:, 0], "image": projected[-1][:, 0]}
    )
    unit = {name: array(value) for name, value in unit.items()}
    for k, values in ((1, {}), (3, {}), (3, {"max_memory": memory(task, 4)})):
        expected = protocol(scores, unit["image"], unit["text"], k)
        found = ranked(task, shortlist=k, **values)
        assert difference(found, expected) <= 1e-5
        assert (found > -100).sum() < 35
    with pytest.warns(UserWarning, match="shortlist=6 .* 5 images and 7 texts"):
        found = ranked(task, shortlist=6)
    expected = protocol(scores, unit["image"], unit["text"], 6)
    assert difference(found, expected) <= 1e-5


@pytest.mark.parametrize("objective", ["random_negatives", "ranking"])
def test_match_probabilities(objective):
    task = randomise(retrieval(objective, **one_layer_each()))
    found = task.match_probabilities(IMAGES, TEXTS, batch_size=4)
    x = {"images": IMAGES * len(TEXTS), "text": np.repeat(TEXTS, len(IMAGES))}
    logits = array(task(task.preprocessor(x))).astype("float64")
    weights = np.exp(logits).reshape(len(TEXTS), len(IMAGES), -1)
    axis = 0 if objective == "ranking" else 2
    shares = weights / weights.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(found, shares[..., -1].T, atol=1e-5)


@pytest.mark.parametrize("eager", [True, False])
def test_a_pass_has_the_rows_that_are_needed(eager, monkeypatch):
    """Or powers of two where shapes compile, of which there are few."""
    if eager and keras.config.backend() != "torch":
        pytest.skip("compiles")
    monkeypatch.setattr(compiled, "is_eager", lambda settings: eager)
    task = randomise(retrieval("random_negatives", **one_layer_each()))
    parts, run = ranking.ranking_parts(task), Forward.__call__
    rows = {parts.text: [], parts.image: [], parts.pairs: []}

    def counted(part, inputs):
        rows.setdefault(part, []).append(len(next(iter(inputs.values()))))
        return run(part, inputs)

    expected = scores_of(task)
    monkeypatch.setattr(Forward, "__call__", counted)
    for images, texts, size in (
        *((1, 4, 4), (1, 3, 4), (2, 2, 4), (5, 7, 4), (3, 1, 4)),
        *((1, 4, 64), (5, 7, 9), (5, 7, 64)),
    ):
        for passes in rows.values():
            passes.clear()
        found = ranked(task, IMAGES[:images], TEXTS[:texts], batch_size=size)
        assert difference(found, expected[:images, :texts]) <= 1e-5
        counts = {parts.text: texts, parts.image: images}
        counts[parts.pairs] = images * texts
        for part, count in counts.items():
            *whole, last = rows[part]
            left = count - sum(whole)
            power = min(size, 1 << (left - 1).bit_length())
            assert {*whole} <= {size} and last == (left if eager else power)
        if size == 4 and not eager:
            # log2(4) + 1, however many pictures and texts there are.
            assert max(len(part._runs) for part in counts) <= 3
    rows.clear()
    task.score(IMAGES[0], TEXTS[:3], batch_size=32)
    assert [*rows.values()] == [[3 if eager else 4]]


@pytest.mark.parametrize("shortlist", [None, 2])
def test_towers_run_once_for_each_item(shortlist, task, monkeypatch):
    """Also where the states of texts wait in a file."""
    parts, run = ranking.ranking_parts(task), Forward.__call__
    passes = dict.fromkeys((parts.text, parts.image, parts.pairs), 0)

    def counted(part, inputs):
        passes[part] += 1
        return run(part, inputs)

    monkeypatch.setattr(Forward, "__call__", counted)
    # A batch of one, so that a call is a pass.
    values = dict(batch_size=1, max_memory=memory(task, 3, 1), verbose=0)
    task.rank(IMAGES[:3], TEXTS[:4], None, shortlist, **values)
    assert (passes[parts.text], passes[parts.image]) == (4, 3)
    assert (passes[parts.pairs] == 12) == (shortlist is None)


@pytest.mark.parametrize("shortlist", [None, 2])
def test_an_interrupted_ranking_goes_on(shortlist, task, tmp_path, monkeypatch):
    values = dict(shortlist=shortlist, max_memory=memory(task, 4))
    values |= dict(images=IMAGES[:3], texts=TEXTS[:4])
    whole = ranked(task, cache_dir=tmp_path / "whole", **values)
    np.testing.assert_array_equal(ranked(task, **values), whole)
    folder, save = tmp_path / "part", ranking._save

    def stop(path, scores):
        if path.name == "block_000001.npy":
            raise KeyboardInterrupt
        save(path, scores)

    with monkeypatch.context() as patch:
        patch.setattr(ranking, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            ranked(task, cache_dir=folder, **values)
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["block_000000.npy", "ranking.json"]
    # What a kill in the middle of writing would leave is not read.
    (folder / "block_000001.part").write_bytes(b"half")
    firsts, scored = [], ranking.Blocks.scores

    def watched(self, rows, fusion=None):
        firsts.append(rows.start)
        return scored(self, rows, fusion)

    monkeypatch.setattr(ranking.Blocks, "scores", watched)
    again = ranked(task, cache_dir=folder, **values)
    np.testing.assert_array_equal(again, whole)
    assert again.dtype == whole.dtype and 0 not in firsts and firsts
    # When all is there, no model runs.
    monkeypatch.setattr(ranking.Blocks, "scores", None)
    again = ranked(task, cache_dir=folder, **values)
    np.testing.assert_array_equal(again, whole)


def test_a_cache_of_something_else_is_refused(task, tmp_path):
    folder = tmp_path / "cache"
    ranked(task, cache_dir=folder)
    for images, texts, values, name in (
        (IMAGES[1:] + IMAGES[:1], TEXTS, {}, "pictures"),
        (IMAGES, TEXTS[::-1], {}, "texts"),
        (IMAGES, TEXTS, {"shortlist": 2}, "shortlist"),
        (IMAGES, TEXTS, {"max_memory": memory(task, 4)}, "block"),
    ):
        with pytest.raises(ValueError, match=f"`cache_dir` must be.*{name}"):
            ranked(task, images, texts, cache_dir=folder, **values)
    bias = task.heads["itm"].output_dense.bias
    saved = array(bias)
    bias.assign(saved + 1)
    with pytest.raises(ValueError, match="weights"):
        ranked(task, cache_dir=folder)
    bias.assign(saved)
    for file, content in (("block_000000.npy", b"\x93NUM"), (KEY, b"[1]")):
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"damaged.*{file}"):
            ranked(task, cache_dir=folder)


def test_rankings_that_are_refused(task):
    for values in (
        *(dict(images=[]), dict(texts=[]), dict(top_k=0), dict(shortlist=0)),
        *(dict(max_memory=1000), dict(max_memory=None)),
    ):
        with pytest.raises(ValueError, match=f"`{[*values][0]}`"):
            ranked(task, **values)
    with pytest.raises(ValueError, match="/no/such.png"):
        ranked(task, ["/no/such.png"])
    without_contrast = kbt.BridgeTowerRetrieval(task.backbone)
    without_contrast.preprocessor = task.preprocessor
    with pytest.raises(ValueError, match="`shortlist`"):
        ranked(without_contrast, shortlist=2)
