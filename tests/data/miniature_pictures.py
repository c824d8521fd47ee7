"""Pictures of easy-VQA and true texts about them, for files of any format."""

import dataclasses
import functools
import io
import json

import numpy as np
import pytest
from keras_bridgetower_drawings.training.easy import pictures as easy_vqa
from PIL import Image

COUNT = 24
# Numbers of the pictures of each split.
PARTS = {"train": range(12), "dev": range(12, 18), "test": range(18, 24)}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture and true statements about it."""

    image: Image.Image
    shape: str
    colour: str
    questions: tuple

    @property
    def caption(self):
        return f"a {self.colour} {self.shape}"

    def encoded(self, form="JPEG"):
        file = io.BytesIO()
        self.image.save(file, form)
        return file.getvalue()

    def save(self, path, form="JPEG"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.encoded(form))


@functools.cache
def pictures():
    """Return the first test pictures with their questions."""
    package = pytest.importorskip("easy_vqa")
    pairs = {}
    for question, answer, image in zip(
        *package.get_test_questions(), strict=True
    ):
        pairs.setdefault(image, []).append((question, answer))
    paths = package.get_test_image_paths()
    shown = []
    for number in sorted(paths)[:COUNT]:
        with Image.open(paths[number]) as opened:
            image = opened.convert("RGB")
        seen = easy_vqa.attributes(np.asarray(image))
        of_image = tuple(pairs[number])
        shown.append(Shown(image, seen.shape, seen.colour, of_image))
    return tuple(shown)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
