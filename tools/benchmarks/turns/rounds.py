"""Run turns of a contender and its reference in two processes."""

import concurrent.futures
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from turns import starts
from turns.devices import device_of
from turns.works import MODULES

BENCHMARKS = pathlib.Path(__file__).parents[1]
# The tests build the models that are compared.
TESTS = BENCHMARKS.parents[1] / "tests"
KILLED = "it was killed, as the system does where memory is short"
# Keys of a turn besides its further measurements.
_KNOWN = ("seconds", "first", "outputs")


class ContenderFailed(RuntimeError):
    """A contender's process ended before it answered."""


def environment(backend, home):
    """Return the environment of a process; `home` keeps converted weights."""
    paths = [str(BENCHMARKS), str(TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # On a GPU two processes share the memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


class Process:
    """A process of its own for calls of functions."""

    def __init__(self, backend, home):
        self._pool = concurrent.futures.ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(environment(backend, home),),
        )

    def call(self, function, *given):
        try:
            return self._pool.submit(function, *given).result()
        except concurrent.futures.process.BrokenProcessPool:
            raise ContenderFailed(KILLED) from None
        except Exception as error:
            self.close()
            raise ContenderFailed(f"{type(error).__name__}: {error}") from error

    def close(self):
        self._pool.shutdown()


def _begin(values):
    os.environ.update(values)
    sys.path.append(str(TESTS))


# In the process of a contender: to prepare a turn, and by sizes the turns.
_PREPARE, _TURNS = [], {}


def load(work, saved, contender):
    """Load the model; return `loading` seconds and the `device`."""
    started = time.perf_counter()
    module = importlib.import_module(f"turns.{MODULES[contender.library]}")
    function = getattr(module, work.function)
    _PREPARE[:] = [function(saved, contender, **contender.settings)]
    return {
        "loading": time.perf_counter() - started,
        "device": device_of(contender),
    }


def take(batch, tokens):
    """Take a turn; return its measurements, of the first one the `outputs`."""
    first = (batch, tokens) not in _TURNS
    if first:
        _TURNS[batch, tokens] = _PREPARE[0](batch, tokens)
    turn = _TURNS[batch, tokens]
    started = time.perf_counter()
    outputs = turn()
    seconds = time.perf_counter() - started
    if first:
        turn()
        return {"first": seconds, "outputs": outputs.tolist()}
    return {"seconds": seconds, **getattr(turn, "measured", dict)()}


class Resident:
    """A process that loads the model once and then takes many turns."""

    def __init__(self, work, contender, saved):
        self._process = Process(contender.backend, saved.home)
        self.about = self._process.call(load, work, saved, contender)
        # That compiles and runs once: `first` seconds and `outputs`.
        self.first = functools.cache(self.ask)

    def ask(self, batch, tokens):
        """Take one turn; return its `seconds` and further measurements."""
        return self._process.call(take, batch, tokens)

    def close(self):
        self._process.close()


class Fresh:
    """A new process for each turn, timed from its start to its last line.

    If the last line has `seconds`, these count instead.
    """

    about = {}

    def __init__(self, work, contender, saved):
        command = getattr(starts, work.function)
        self.command = command(saved, contender, **contender.settings)
        self.environment = environment(contender.backend, saved.home)

    def ask(self, *sizes):
        """Take one turn; return its `seconds` and further measurements."""
        last, seconds = "", 0.0
        with tempfile.TemporaryFile("w+") as log:
            started = time.perf_counter()
            with subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
                text=True,
            ) as process:
                for line in process.stdout:
                    last, seconds = line, time.perf_counter() - started
            if process.returncode == -signal.SIGKILL:
                raise ContenderFailed(KILLED)
            if process.returncode:
                log.seek(0)
                raise ContenderFailed(log.read().strip().rpartition("\n")[2])
        return {"seconds": seconds, **json.loads(last)}

    # A turn that does not count: it brings files into memory.
    first = ask

    def close(self):
        """Nothing is open between turns."""


class Saved:
    """The files of a random model, each written when first needed."""

    def __init__(self, root, size, side=None):
        self.size, self.side = size, side
        root = pathlib.Path(root).absolute()
        self.folder = root / f"{size}-{side or 'own'}"
        # The cache of converted checkpoints.
        self.home = root / "keras"
        self.picture = self.path("checkpoint") / "picture.jpg"
        self.answers = self.path("checkpoint") / "answers.npz"

    def pixels(self):
        config = self.path("checkpoint") / "config.json"
        return json.loads(config.read_text())["vision_config"]["image_size"]

    def path(self, name):
        """Return the path of a file, a key of `save.WRITERS`."""
        return self.folder / name

    def need(self, name):
        if self.path(name).exists():
            return
        if name != "checkpoint":
            self.need("checkpoint")
        with contextlib.closing(Process("torch", self.home)) as writer:
            writer.call(_write, name, self)


def _write(name, saved):
    from turns import save

    save.write(name, saved)


class Rounds:
    """The rounds of one work with one saved model.

    The process of a contender and that of its reference take turns, so that a
    machine that slows down slows both. The process of a reference is kept for
    the next contender.
    """

    def __init__(self, work, saved, repeats):
        self.work, self.saved, self.repeats = work, saved, repeats
        self._name, self._reference = None, None

    def close(self):
        if self._reference is not None:
            self._reference.close()
        self._name, self._reference = None, None

    def rows(self, contender, batches, tokens):
        """Time one contender, and yield a dict for each batch.

        It has the `summary`, `name`, `beside`, `batch`, `distance` of the
        outputs, and medians of further measurements of both. A `Resident`
        adds `first` and `loading` seconds, and `device`.
        """
        if contender.beside != self._name:
            self.close()
            self._name = contender.beside
            self._reference = self._opened(self.work.named()[self._name])
        runner = self._opened(contender)
        try:
            for batch in batches:
                yield {
                    "name": contender.name,
                    "beside": contender.beside,
                    "batch": batch,
                    **runner.about,
                    **self._compared(runner, batch, tokens),
                }
        except ContenderFailed:
            # The reference may have failed: the next contender gets a new one.
            self.close()
            raise
        finally:
            runner.close()

    def _opened(self, contender):
        self.saved.need(contender.file)
        runner = Fresh if self.work.fresh else Resident
        return runner(self.work, contender, self.saved)

    def _compared(self, runner, batch, tokens):
        both, sizes = (runner, self._reference), (batch, tokens)
        first, expected = (one.first(*sizes) for one in both)
        row = {"first": first["first"]} if "first" in first else {}
        if "outputs" in first and "outputs" in expected:
            row["distance"] = distance(first["outputs"], expected["outputs"])
        turns = [[one.ask(*sizes) for one in both] for _ in range(self.repeats)]
        row |= summary([(a["seconds"], b["seconds"]) for a, b in turns])
        if self.work.per_row:
            row["seconds per row"] = row["seconds"] / batch
        ours, theirs = zip(*turns, strict=True)
        for prefix, answers in (("", ours), ("reference's ", theirs)):
            for key in sorted(answers[0].keys() - _KNOWN):
                values = [answer[key] for answer in answers]
                row[f"{prefix}{key}"] = statistics.median(values)
        return row


def summary(pairs):
    """Summarize turns: pairs of the contender's and the reference's seconds.

    Each ratio compares two consecutive turns, so that other load on the
    machine slows both. Above 1 the contender is faster. `low` and `high` are
    its quartiles, interpolated between turns.
    """
    ratios = [reference / seconds for seconds, reference in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "seconds": statistics.median(seconds for seconds, _ in pairs),
        "reference": statistics.median(reference for _, reference in pairs),
        "ratio": middle,
        "low": low,
        "high": high,
    }


def distance(outputs, expected):
    outputs, expected = np.array(outputs), np.array(expected)
    if outputs.shape != expected.shape:
        raise ValueError(f"{outputs.shape} values are not {expected.shape}")
    return float(abs(outputs - expected).max() / abs(expected).max())
