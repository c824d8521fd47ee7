"""Faults of runs and of a user's data, as tests inject them.

    KERAS_BACKEND=torch python tests/faults_of_runs.py OUT.json

runs the tests of `ROWS` that are not in OUT.json yet, and adds what came of
each: see `faults_run`, which makes the document of it.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest

import keras_bridgetower

TESTS = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(keras_bridgetower.__file__).parent
OURS = (str(PACKAGE), str(PACKAGE.parent / "tools"))
TYPED = None
EXACT = "goes on, equal to the bit"
LISTED = "is found, and listed by its name"
GONE = "the process is gone"
ALL = "typed, in every process within 60 s"
REST = "all others are read, once"
LOGGED = "is reported"
LINE = "an error in the line of the picture"

IDENTITY, ENDS, RANKS, SURVIVAL, CHECKS = (
    f"training/test_{name}"
    for name in (
        "identity.py::test_",
        "ending.py::test_the_process_ends",
        "ranks.py::test_",
        "survival.py::test_",
        "run_checks.py::test_",
    )
)
DAMAGE, PICTURES, TABLES = (
    f"data/test_{name}.py::test_"
    for name in ("pipeline_damage", "pictures_of_runs", "own_data")
)
SOURCES = "test_predict_sources.py::test_"
TRAIN = RANKS + "two_processes_train"
INTRODUCTION = """
## Runs, and data of one's own

One of the project's tests injects each fault, in one case or several, and
checks the outcome in the last column. An error of this library is given by its
first sentence.

"""
# For each fault the beginning of the tests that inject it, and what they hold;
# `TYPED`: it ends in an error, of which the table tells.
ROWS = {
    "run's folder": {
        "another process trains": (IDENTITY + "one_run", TYPED),
        "lock of a killed process": (IDENTITY + "one_run", "goes on"),
        "killed in a save, then SIGTERM": (
            SURVIVAL + "a_run_continues_after_a_kill",
            EXACT,
        ),
    },
    "callbacks beside it": {
        "`BackupAndRestore`": (
            CHECKS + "arguments_of_fit_are_rejected[backup",
            TYPED,
        ),
        "`EarlyStopping` that sets back weights": (
            CHECKS + "arguments_of_fit_are_rejected[best",
            TYPED,
        ),
        "`SwapEMAWeights`": (
            CHECKS + "arguments_of_fit_are_rejected[swapped",
            TYPED,
        ),
        "`EarlyStopping`, `ModelCheckpoint(save_best_only)`, "
        "`ReduceLROnPlateau`, interrupted": (
            IDENTITY + "states_of_keras_callbacks_continue",
            EXACT,
        ),
    },
    "changed before it goes on": {
        "rate, schedule, decay, clipping": (
            IDENTITY + "changed_optimizers",
            TYPED,
        ),
        "class of the optimizer": (SURVIVAL + "other_models", TYPED),
        "converter, tokenizer, preprocessor, dropout, dtype": (
            IDENTITY + "identity_of_models",
            LISTED,
        ),
        "functions of a transform": (
            IDENTITY + "identity_of_custom_transforms",
            LISTED,
        ),
        "batch size, seed, order, weights, transform, records": (
            CHECKS + "identity_of_streams",
            LISTED,
        ),
        "length of an epoch": (CHECKS + "other_data_are_rejected", TYPED),
        "settings": (SURVIVAL + "other_settings", TYPED),
    },
    "labels": {"not finite": (SURVIVAL + "nonfinite_losses", TYPED)},
    "ending, while a stream is read": {
        "error inside the first step": (ENDS + "[loss:1", GONE),
        "error behind the tenth step": (ENDS + "[error:10", GONE),
        "Ctrl-C": (ENDS + "[int:10", GONE),
        "SIGTERM": (ENDS + "[term:10", GONE),
        "error in a loop of one's own": (ENDS + "[raise:3", GONE),
        "end of a script that holds an iterator": (ENDS + "[hold:3", GONE),
    },
    "two processes": {
        "checkpoint in the first alone": (TRAIN, ALL),
        "older checkpoint in the second": (TRAIN, ALL),
        "another seed": (TRAIN, ALL),
        "other weights": (TRAIN, ALL),
        "one of two or three is killed": (
            SURVIVAL + "survivors_of",
            "the others end within 10 s",
        ),
        "one of them fails": (RANKS + "an_error_in_one", TYPED),
        "one row for each, to be paired": (RANKS + "matching_needs", TYPED),
        "a stream that is divided already": (RANKS + "a_stream_is", TYPED),
    },
    "pictures": {
        "shrunken into a black frame": (PICTURES + "a_black", TYPED),
        "transform and converter differ": (PICTURES + "a_run_com", TYPED),
        "too many pixels, in a build": (PICTURES + "a_build", TYPED),
        "too many pixels, in a stream": (
            DAMAGE + "a_bomb_is_one_bad_sample[pixels",
            "is reported",
        ),
    },
    "records": {
        "shard with no sample left": (DAMAGE + "a_shard_all", REST),
        "batch with no row left": (DAMAGE + "a_batch_without", TYPED),
    },
    "own tables": {
        "column nearly right": (TABLES + "misspelled_columns", TYPED),
        "path or link out of the folder": (TABLES + "pictures_outside", TYPED),
    },
    "`predict`": {
        "two at once": (SOURCES + "one_process", TYPED),
        "lock of a killed process": (SOURCES + "lock_of", "goes on"),
        "changed pictures": (SOURCES + "changed", TYPED),
        "path or link out of the folder": (SOURCES + "table_pictures", LINE),
    },
}


def starts():
    """Where the names of the tests begin."""
    return {test for faults in ROWS.values() for test, _ in faults.values()}


class Recorder:
    """A plug-in of pytest that runs the rows' tests, and keeps their errors."""

    def __init__(self, path):
        self.path, self.found = path, json.loads(path.read_text())
        self.raises = pytest.raises
        pytest.raises = self.kept

    def kept(self, *args, **kwargs):
        return Kept(self.raises(*args, **kwargs), self.errors)

    def pytest_collection_modifyitems(self, items):
        wanted, done = tuple(starts()), set(self.found)
        items[:] = [
            item
            for item in items
            if (name := name_of(item.nodeid)).startswith(wanted)
            and name not in done
        ]

    def pytest_runtest_call(self, item):
        self.errors = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            result = {"errors": self.errors, "passed": report.passed}
            self.found[name_of(report.nodeid)] = result
            self.path.write_text(json.dumps(self.found, indent=1))


def name_of(test):
    return test.removeprefix("tests/")


class Kept:
    """`pytest.raises`, whose errors of ours are kept."""

    def __init__(self, context, kept):
        self.context, self.kept = context, kept

    def __enter__(self):
        return self.context.__enter__()

    def __exit__(self, kind, error, trace):
        caught = self.context.__exit__(kind, error, trace)
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        last = trace.tb_frame.f_code.co_filename if trace else ""
        if caught and last.startswith(OURS):
            self.kept.append(f"{kind.__name__}: {first_sentence(error)}")
        return caught


def first_sentence(error):
    """Of an error, without the names of folders, for a cell of a table."""
    text = str(error).partition("Received:")[0]
    text = re.sub(r"(?<![\w.])/[^\s',:]+/", "", " ".join(text.split()))
    (text, *_) = re.split(r"(?<=[\w'`)])[.:] ", text + " ")
    return text.strip().replace("|", "\\|")


def made():
    """Run the tests; a list of `(what, fault, injected, outcome, passed)`."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "found.json"
        out.write_text("{}")
        # What meets no backend is tested on the second one alone.
        for backend in ("torch", "tensorflow"):
            subprocess.run(
                [sys.executable, __file__, out],
                env=os.environ | {"KERAS_BACKEND": backend},
                check=False,
            )
        return rows_of(json.loads(out.read_text()))


def rows_of(found):
    """The rows, of the tests' results by name."""
    rows = []
    for what, faults in ROWS.items():
        for fault, (start, held) in faults.items():
            tests = [v for k, v in found.items() if k.startswith(start)]
            errors = [error for test in tests for error in test["errors"]]
            passed = bool(tests) and all(test["passed"] for test in tests)
            if held is TYPED:
                passed = passed and bool(errors)
                held = f"typed: {errors[0]}" if errors else "no error"
            rows.append((what, fault, len(tests), held, passed))
    return rows


def section(rows):
    """The Markdown of what `made` returns."""
    lines = ["| what | fault | cases | outcome |", "|---|---|---|---|"]
    for what, fault, count, outcome, passed in rows:
        outcome = outcome if passed else "**a test failed**"
        lines.append(f"| {what} | {fault} | {count} | {outcome} |")
    return INTRODUCTION + "\n".join(lines) + "\n"


def main(out):
    files = {f"{TESTS / start.partition('::')[0]}" for start in starts()}
    pytest.main(
        [*sorted(files), "-qm", "slow or not slow", "-pno:cacheprovider"],
        plugins=[Recorder(pathlib.Path(out))],
    )


if __name__ == "__main__":
    main(sys.argv[1])
