"""Where the files of one random model lie, each written once when needed."""

import json
import pathlib
import subprocess
import sys

from turns.runners import ContenderFailed
from turns.runners import environment
from turns.runners import error_in


class Saved:
    """The files of a model of one size for pictures of one side.

    Args:
        root: path of the folder of all models.
        size: str, a key of `save.SIZES`.
        side: int, pixels, or None for the one of the size.
    """

    def __init__(self, root, size, side=None):
        self.size, self.side = size, side
        root = pathlib.Path(root).absolute()
        self.folder = root / f"{size}-{side or 'own'}"
        # Of checkpoints that this package has converted.
        self.home = root / "keras"

    @classmethod
    def of(cls, folder):
        """The files in a folder that is written already."""
        size, side = folder.name.rsplit("-", 1)
        return cls(folder.parent, size, None if side == "own" else int(side))

    def pixels(self):
        """Side of the pictures, as the checkpoint says; it must be there."""
        config = self.path("checkpoint") / "config.json"
        return json.loads(config.read_text())["vision_config"]["image_size"]

    def path(self, name):
        """Path of what `save.WRITERS` writes under this name."""
        return self.folder / name

    @property
    def picture(self):
        """Path of a JPEG file."""
        return self.path("checkpoint") / "picture.jpg"

    @property
    def answers(self):
        """Path of the weights of a head that answers questions."""
        return self.path("checkpoint") / "answers.npz"

    def need(self, name):
        """Write a file, by a process that then gives its memory back.

        Args:
            name: str, a key of `save.WRITERS`.

        Raises:
            ContenderFailed: it cannot be written.
        """
        path = self.path(name)
        if path.exists():
            return
        if name != "checkpoint":
            self.need("checkpoint")
        done = subprocess.run(
            [sys.executable, "-m", "turns.save", name, str(self.folder)],
            env=environment("torch", self.home),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            error = error_in(done.stderr)
            raise ContenderFailed(f"{name} was not written: {error}")
