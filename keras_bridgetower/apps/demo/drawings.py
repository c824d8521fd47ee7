"""Example pictures of the page: drawings of emoji."""

import pathlib

FOLDER = pathlib.Path(__file__).parent / "pictures"


def pictures():
    """Return the path of each example picture, a str, by name."""
    return {path.stem: str(path) for path in sorted(FOLDER.glob("*.png"))}
