"""What the stages of a run share: the world, its split, and a folder."""

import pathlib

from emoji_world import packages
from emoji_world import splits
from emoji_world import world
from emoji_world.colours import main_colour


class Run:
    """The world, its split, and where the stages of a run are written.

    Args:
        folder: path.
        seed: int.
    """

    def __init__(self, folder, seed):
        self.folder, self.seed = pathlib.Path(folder), seed
        self.packages = packages.fetch(self.folder / "packages")
        self.world = world.load(self.packages)
        self.splits = splits.split(self.world)
        self.colours = [
            main_colour(world.drawing(emoji, "noto")) for emoji in self.world
        ]
