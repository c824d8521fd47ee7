"""Loads the set-up of the library's tests."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
pytest_plugins = ["suite"]
