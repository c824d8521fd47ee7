"""The rows of docs/conformance.md, and tasks that the tests share.

A row is a test function with a docstring, whose first line it is, and one of
its cases for each task. A refusal is recorded as its outcome; a test that
passes without one is right.
"""

import contextlib
import pathlib

import every_task
import pytest
from builders import shallow
from every_task import TASKS

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        parts = getattr(item, "callspec", None)
        if HERE not in item.path.parents or parts is None:
            continue
        named = [v for v in parts.params.values() if v in TASKS]
        text = item.function.__doc__
        if named and text:
            row, _, _ = text.strip().partition("\n")
            others = [p for p in parts.id.split("-") if p not in named]
            row = f"{row.rstrip('.')}: {', '.join(others)}" if others else row
            item.user_properties.append(("row", row.rstrip(".")))
            item.user_properties.append(("task", named[0]))


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
def trained():
    """Compiled tasks by name, back at their first weights and slots."""
    backbone, made = shallow(), {}

    def get(name):
        if name not in made:
            made[name] = every_task.build(name, backbone)
            made[name].first = every_task.values(made[name])
        return every_task.restore(made[name])

    return get
