"""Drawings of emoji, the example pictures of the page that one recognises."""

import pathlib

FOLDER = pathlib.Path(__file__).parent / "pictures"


def pictures():
    """The path of each example picture, a str, by name."""
    return {path.stem: str(path) for path in sorted(FOLDER.glob("*.png"))}
