"""The world, its split and the folder that the stages of a run share."""

import functools
import pathlib

from keras_bridgetower_drawings.training.emoji import packages
from keras_bridgetower_drawings.training.emoji import splits
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.colors import main_color
from keras_bridgetower_drawings.training.emoji.teacher import KeptVectors
from keras_bridgetower_drawings.training.emoji.teacher import meanings

# The folder of a run that its last stage writes.
WHOLE = "spelling"


class Run:
    """The world, its split, and the folder in which the stages write."""

    def __init__(self, folder, seed):
        self.folder, self.seed = pathlib.Path(folder), seed
        self.packages = packages.fetch(self.folder / "packages")
        self.world = world.load(self.packages)
        self.splits = splits.split(self.world)
        self.colors = [
            main_color(world.drawing(emoji, "noto")) for emoji in self.world
        ]

    @functools.cached_property
    def teacher(self):
        """MiniLM, with a cache."""
        return KeptVectors(self.packages["minilm"], self.folder / "teacher")

    @functools.cached_property
    def meanings(self):
        """A definition of each name, or None."""
        return meanings(
            self.world, self.splits, self.packages["wordnet"], self.teacher
        )

    def caption(self, number, rng):
        return texts.caption(
            self.world[number],
            self.colors[number],
            self.splits,
            rng,
            self.meanings[number],
        )
