"""The rows of the tables of `tools/conformance.py`, and shared tasks.

A row is a test function with a docstring, whose first line it is, and one of
its cases for each task. A refusal is recorded as its outcome; a test that
passes without one is right.
"""

import contextlib
import json
import os
import pathlib

import every_task
import keras
import pytest
from builders import shallow
from every_task import TASKS

ON_JAX = keras.config.backend() == "jax"
HERE = pathlib.Path(__file__).parent
# A file to which `tools/conformance.py` lets outcomes be added.
REPORT = os.environ.get("CONFORMANCE_REPORT")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if HERE in item.path.parents and hasattr(item, "callspec"):
            item.user_properties.extend(place_in_matrix(item).items())
    if REPORT:
        known = {line["test"] for line in lines() if is_good(line)}
        done = [i for i in items if i.nodeid in known or not in_matrix(i)]
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]


def place_in_matrix(item):
    """Row and column of a test, if it has them."""
    named = [v for v in item.callspec.params.values() if v in [*TASKS]]
    text = item.function.__doc__
    if not named or not text:
        return {}
    row = text.strip().partition("\n")[0].rstrip(".")
    others = [part for part in item.callspec.id.split("-") if part not in named]
    return {"row": ": ".join([row, *others]), "task": named[0]}


def in_matrix(item):
    return "row" in dict(item.user_properties)


def lines():
    path = pathlib.Path(REPORT)
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def is_good(line):
    return not line["outcome"].startswith("FAILS")


def pytest_runtest_logreport(report):
    found = dict(report.user_properties)
    ended = report.when == "call" or report.outcome != "passed"
    if not REPORT or not ended or "row" not in found:
        return
    outcome = found.get("outcome", "right")
    if report.skipped:
        outcome = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
    elif report.failed:
        outcome = "FAILS"
    line = {"test": report.nodeid, "row": found["row"], "task": found["task"]}
    with open(REPORT, "a") as file:
        print(json.dumps(line | {"outcome": outcome}), file=file)


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
def trained(any_backbone):
    """Compiled tasks by name, back at their first weights and slots."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = every_task.build(name, any_backbone)
            made[name].first = every_task.values(made[name])
            if REPORT:
                # Traced once, the many steps take TensorFlow less time.
                every_task.compiled(
                    made[name], run_eagerly=False, jit_compile=ON_JAX
                )
        return every_task.restore(made[name])

    return get


@pytest.fixture(scope="session")
def any_backbone():
    """One whose weights each test sets anew."""
    return shallow()


@pytest.fixture(scope="session")
def plain(trained):
    """What `everything` gives of a task without any option."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = every_task.everything(trained(name), name)
        return made[name]

    return get
