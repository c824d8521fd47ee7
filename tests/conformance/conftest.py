"""The rows of the tables of `tools/conformance.py`, and shared tasks.

A row is a test function with a docstring, whose first line it is, and one of
its cases for each task. A refusal is recorded as its outcome; a test that
passes without one is right.
"""

import contextlib
import functools
import pathlib

import every_task
import keras
import pytest
from builders import shallow
from every_task import TASKS

ON_JAX = keras.config.backend() == "jax"
HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and hasattr(item, "callspec"):
            item.user_properties.extend(place_in_matrix(item).items())


def place_in_matrix(item):
    """Row and column of a test, if it has them."""
    values = item.callspec.params.values()
    named = [v for v in values if isinstance(v, str) and v in TASKS]
    text = item.function.__doc__
    if not named or not text:
        return {}
    row = text.strip().partition("\n")[0].rstrip(".")
    others = [part for part in item.callspec.id.split("-") if part not in named]
    return {"row": ": ".join([row, *others]), "task": named[0]}


@pytest.fixture
def refused(record_property):
    """A context that expects one clear error, and records it."""

    @contextlib.contextmanager
    def expecting(message, error=ValueError):
        with pytest.raises(error, match=message) as raised:
            yield
        text = str(raised.value)
        assert len(text) < 600 and "\n" not in text
        record_property("outcome", f"refused: {text}")

    return expecting


@pytest.fixture(scope="session")
def trained(any_backbone, pytestconfig):
    """Compiled tasks by name, back at their first weights and slots."""

    @functools.cache
    def made(name):
        task = every_task.build(name, any_backbone)
        task.first = every_task.values(task)
        if pytestconfig.getoption("xmlpath"):
            # Traced once, the many steps take TensorFlow less time.
            every_task.compiled(task, run_eagerly=False, jit_compile=ON_JAX)
        return task

    return lambda name: every_task.restore(made(name))


@pytest.fixture(scope="session")
def any_backbone():
    """One whose weights each test sets anew."""
    return shallow()


@pytest.fixture(scope="session")
def plain(trained):
    """What `everything` gives of a task without any option."""
    return functools.cache(
        lambda name: every_task.everything(trained(name), name)
    )
