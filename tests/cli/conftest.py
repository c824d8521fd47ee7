"""A command that runs in this process."""

import pytest

from keras_bridgetower.apps.cli import main


@pytest.fixture
def run(capsys):
    """Run a command, and return what it printed on stdout and stderr."""

    def run(*words, code=0):
        capsys.readouterr()
        assert main.main([str(word) for word in words]) == code
        return capsys.readouterr()

    return run
