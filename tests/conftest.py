"""Loads the set-up of all tests, those of the preset packages too."""

pytest_plugins = ["suite"]
