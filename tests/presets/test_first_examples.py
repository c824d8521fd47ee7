"""The pictures and texts with which one tries presets."""

import dataclasses
import pathlib

import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.presets import table

pytestmark = FASTEST
ROOT = pathlib.Path(kbt.__file__).parents[1]
PHOTOS = ROOT / "preset_packages" / "photos" / "keras_bridgetower_photos"
PHOTO = "bridgetower_small_photo_vqa"


@pytest.fixture
def with_photos(monkeypatch):
    """The table of an environment with the photo presets."""
    emoji = table.PRESETS["bridgetower_tiny_emoji_vqa"]
    photo = dataclasses.replace(emoji, name=PHOTO, root=str(PHOTOS))
    presets = {**table.PRESETS, PHOTO: photo}
    monkeypatch.setattr(table, "PRESETS", presets)


def pictures_of(found):
    return {path for rows in found.values() for path, _ in rows if path}


def check_whole(found):
    assert set(found) == {"ask", "match", "search", "fill", "look", "pictures"}
    shown = {path for path, _ in found["pictures"]}
    assert shown >= pictures_of(found)
    for path in shown:
        with Image.open(path) as picture:
            picture.verify()
    assert all("___" in text for _, text in found["fill"])
    # Each text of a search is about a picture that is searched.
    assert {path for path, _ in found["search"]} <= shown


def test_photographs_if_they_are_installed(with_photos):
    assert kbt.default_family() == "bridgetower_small_photo_"
    found = kbt.first_examples()
    check_whole(found)
    assert {path.suffix for path in pictures_of(found)} == {".jpg"}
    # Published presets know photographs, and have no pictures of their own.
    for name in (PHOTO, "bridgetower_base", "no/such/folder"):
        assert kbt.first_examples(name) == found
    (emoji, _) = kbt.first_examples("bridgetower_tiny_emoji_vqa")["ask"][0]
    assert emoji.suffix == ".png"


def test_emoji_otherwise():
    assert kbt.default_family() == "bridgetower_tiny_emoji_"
    found = kbt.first_examples()
    check_whole(found)
    assert found == kbt.first_examples("bridgetower_base")
    assert {path.suffix for path in pictures_of(found)} == {".png"}


def test_a_distribution_without_examples(with_photos, tmp_path, monkeypatch):
    bare = dataclasses.replace(table.PRESETS[PHOTO], root=str(tmp_path))
    monkeypatch.setitem(table.PRESETS, PHOTO, bare)
    check_whole(kbt.first_examples())


def test_the_photographs_are_those_of_the_examples():
    for path in (PHOTOS / "examples").glob("*.jpg"):
        first = ROOT / "examples" / "photographs" / path.name
        assert path.read_bytes() == first.read_bytes()
