"""The emoji world: its splits, texts, questions and scores."""

import hashlib
import math
import shutil
import tarfile

import numpy as np
import pytest
from builders import FASTEST
from digests import digest
from keras_bridgetower_drawings.training.emoji import drawings
from keras_bridgetower_drawings.training.emoji import packages
from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji import splits
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.run import Run
from PIL import Image

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
