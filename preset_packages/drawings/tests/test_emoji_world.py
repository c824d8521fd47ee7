"""The emoji world and how its presets are trained, against closed forms."""

import hashlib
import math
import shutil
import tarfile
import types

import numpy as np
import pytest
from builders import FASTEST
from digests import digest
from keras import ops
from keras_bridgetower_drawings.training.emoji import calibrate
from keras_bridgetower_drawings.training.emoji import drawings
from keras_bridgetower_drawings.training.emoji import kept_states
from keras_bridgetower_drawings.training.emoji import packages
from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import rerank
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji import splits
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji import towers
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.kept_states import WrongCaptions
from keras_bridgetower_drawings.training.emoji.model import SPACE
from keras_bridgetower_drawings.training.emoji.run import Run
from PIL import Image

import keras_bridgetower as kbt

pytestmark = FASTEST


def drawn(path, color, side=64, size=40):
    image = Image.new("RGBA", (side, side), (255, 0, 255, 0))
    image.paste((*color, 255), (4, 4, 4 + size, 4 + size))
    image.save(path)
    return path


@pytest.fixture
def small_world(tmp_path):
    """Twelve emoji of different colors, two of which look alike."""
    found = []
    for i in range(12):
        look = 10 if i == 11 else i
        color = (20 * look, 255 - 20 * look, (60 * look) % 256)
        files = {
            artist: drawn(tmp_path / f"{artist}{i}.png", color)
            for artist in world.ARTISTS
        }
        words = (f"word{'abcdefghijkl'[i]}", f"plain {i}")
        told = (f"1F{600 + i}", f"thing number {i}", words, "objects", "tool")
        found.append(world.Emoji(*told, files))
    return found


def test_captions_and_questions_are_those_of_the_presets(small_world):
    split = splits.Splits(
        np.arange(12), np.zeros(12, bool), frozenset({"worda"})
    )
    rng = np.random.default_rng(0)
    said = [
        texts.caption(emoji, "gray", split, rng)
        for emoji in small_world
        for _ in range(20)
    ]
    assert digest(said) == "4d8be407" and "worda" not in str(said).lower()
    asked = [
        questions.question(emoji, "gray", rng)
        for emoji in small_world
        for _ in range(20)
    ]
    assert digest(np.transpose(asked)) == "7702d799"
    assert {answer for *_, answer in asked} <= set(questions.ANSWERS)


def test_chance_is_the_closed_form(small_world):
    shown = score.Gallery(small_world, np.arange(12), "noto")
    chance = shown.chance([{3}, {1, 2}], kept=(1, 5))
    two = 1 - math.comb(10, 5) / math.comb(12, 5)
    assert chance["IR@1"] == round(100 * (1 / 12 + 2 / 12) / 2, 2)
    assert chance["IR@5"] == round(100 * (5 / 12 + two) / 2, 2)


def test_recalls_count_looks(small_world):
    shown = score.Gallery(small_world, np.arange(12), "noto")
    scores = np.zeros((2, 12))
    scores[0, [3, 4]] = (2, 1)
    scores[1, [7, 8, 9]] = (3, 2, 1)
    found = shown.recalls(scores, [{4}, {9}], kept=(1, 2, 3))
    assert found == {"IR@1": 0.0, "IR@2": 50.0, "IR@3": 100.0}
    texts_first = score.text_recalls(scores[:, [4, 9]], [4, 9], [4, 9], (1,))
    assert texts_first == {"TR@1": 100.0}


def test_archive_with_another_sum_is_rejected(tmp_path):
    inside = tmp_path / "package"
    inside.mkdir()
    (inside / "index.txt").write_text("hello")
    archive = tmp_path / "some-data-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(inside, "package")
    known = hashlib.sha256(archive.read_bytes()).hexdigest()
    for sha256 in (known, "0" * 64):
        package = packages.Package(
            *("npm", "some-data", "1.0.0", sha256, "MIT", "nobody")
        )
        if sha256 == known:
            folder = packages.fetch(tmp_path, {"data": package})["data"]
            assert (folder / "package/index.txt").read_text() == "hello"
        else:
            with pytest.raises(ValueError, match="not the archive"):
                packages.fetch(tmp_path, {"changed": package})


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_world_of_the_registries(tmp_path):
    run = Run(tmp_path, 0)
    splits_ = run.splits
    assert len(run.world) == 1906
    assert splits_.held_out.sum() == 57
    assert len(splits_.held_out_words) == 120
    unseen = splits.shrunk(run.world, world.UNSEEN_ARTIST)
    for artist in world.TRAINING_ARTISTS:
        apart = np.abs(splits.shrunk(run.world, artist) - unseen)
        assert np.nanmin(apart.mean((1, 2, 3))) > splits.ALIKE
    rows = drawings.TrainingDrawings(run).rows
    assert not splits_.held_out[[number for number, _ in rows]].any()


def test_loss_of_captions_and_sentences():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(4, SPACE)).astype("float32")
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    given = places[:2]
    true = np.zeros((2, SPACE + 4), "float32")
    true[0, SPACE + 0] = 1.0  # A caption: only what it must find.
    true[1, :SPACE] = places[2]  # A sentence: it has moved.
    true[1, SPACE:] = (0.0, 0.5, 0.5, 0.0)
    given_to = map(ops.convert_to_tensor, (true, given))
    loss = towers.find_it(places)(*given_to)
    loss = ops.convert_to_numpy(loss)
    near = towers.SCALE * given @ places.T
    logs = near - np.log(np.exp(near).sum(-1, keepdims=True))
    moved = towers.ENGLISH * (1 - places[1] @ places[2])
    wanted = [-logs[0, 0], moved - (logs[1, 1] + logs[1, 2]) / 2]
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)


@pytest.fixture
def run():
    """Three emoji: the first two share a keyword."""
    told = [("dog", ("pet", "puppy")), ("cat", ("pet",)), ("car", ("drive",))]
    emoji = [
        world.Emoji(str(i), name, words, "objects", "tool", {})
        for i, (name, words) in enumerate(told)
    ]
    split = splits.Splits(np.arange(3), np.zeros(3, bool), frozenset())
    return types.SimpleNamespace(world=emoji, splits=split)


def test_wrong_captions_are_false(run):
    captions = ["a dog", "a pet", "puppy", "a cat", "pet", "it is", "a car"]
    emoji_of = np.array([0, 0, 0, 1, 1, 1, 2])
    vectors = np.eye(3)[emoji_of] + 0.1
    wrong = WrongCaptions(run, captions, emoji_of, vectors)
    rng = np.random.default_rng(0)
    for alike in (0.0, 1.0):
        drawn = {captions[wrong.draw(0, alike, rng)] for _ in range(200)}
        # "a pet" is true of the dog, "it is" names nothing.
        assert drawn == {"a cat", "a car"}
        drawn = {captions[wrong.draw(1, alike, rng)] for _ in range(200)}
        assert drawn == {"a dog", "puppy", "a car"}


def test_descriptive_words_are_hidden():
    task = kbt.BridgeTowerContrastive.from_preset(
        "bridgetower_tiny_emoji_contrastive"
    )
    tokenizer = task.preprocessor.tokenizer
    kept = kept_states.KeptStates.__new__(kept_states.KeptStates)
    kept._tokenizer = tokenizer
    kept._text = kept_states._Tower(task.backbone.text_tower)
    said = ["A drawing of a dog", "it shows a red car and a cat"]
    ids = kept._ids(said)
    common = np.unique(kept._ids(kept_states._plain_words()))
    for seed in range(5):
        masked = kept._masked(ids, common, np.random.default_rng(seed))
        hidden = [
            [tokenizer.id_to_token(i).strip("\u0120") for i in row if i >= 0]
            for row in masked.tokens
        ]
        assert hidden[0] == ["dog"]
        assert hidden[1] and set(hidden[1]) <= {"red", "car", "cat"}
        for row, places, tokens in zip(
            ids, masked.places, masked.tokens, strict=True
        ):
            there = tokens >= 0
            np.testing.assert_array_equal(row[places[there]], tokens[there])


def test_shares_become_how_often_answers_are_right():
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_emoji_vqa")
    before = np.array(vqa.heads["vqa"].output_dense.bias)
    shares = np.full(8, 1 / (1 + math.exp(-4)))
    right = np.array([True, True, True, False] * 2)
    found = calibrate.calibrate(vqa, shares, right)
    # sigmoid(4 / T) = 3 / 4.
    temperature = 4 / math.log(3)
    assert found["temperature"] == pytest.approx(temperature, abs=1e-3)
    assert found["calibration error before"] == pytest.approx(0.232, abs=1e-3)
    assert found["after"] == 0
    after = np.array(vqa.heads["vqa"].output_dense.bias)
    assert np.allclose(after, before / temperature, rtol=1e-4)


def test_ndcg_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    pool = 40
    right = rng.random((20, pool)) < 0.15
    right[:, 3] = True  # The ideal list is not empty.
    lists = np.argsort(rng.random(right.shape), 1)
    first = np.take_along_axis(right, lists, 1)[:, : rerank.FIRST]
    scores = np.zeros(right.shape)
    np.put_along_axis(scores, lists, np.arange(pool, 0, -1.0)[None], 1)
    found = rerank.ndcg(first, right.sum(1)).mean()
    assert found == pytest.approx(sklearn.ndcg_score(right, scores, k=10))
