"""Lets contenders take turns, and gathers their times."""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile


class Runner:
    """A contender's process.

    Args:
        work: str, `"forward"` or `"steps"`.
        contender: `Contender`.
        folder: path of the checkpoint.
    """

    def __init__(self, work, contender, folder):
        here = str(pathlib.Path(__file__).parents[1])
        paths = [here, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "KERAS_BACKEND": contender.backend,
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.log = tempfile.TemporaryFile("w+")
        fields = json.dumps(dataclasses.asdict(contender))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "turns.process", work, str(folder), fields],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
        )
        self.loading = self._answer()["loading"]
        self._first = {}

    def first(self, **turn):
        """What came out of the first turn of these sizes, with `outputs`."""
        key = tuple(turn.values())
        if key not in self._first:
            self._first[key] = self.ask(**turn)
        return self._first[key]

    def ask(self, **values):
        """One turn: a dict of what came out of it."""
        self.process.stdin.write(json.dumps(values) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"A contender ended: {self.log.read()[-2000:]}")
        return json.loads(line)


def take_turns(work, contenders, reference, folder, batches, tokens, repeats):
    """Time contenders beside a reference.

    Each contender has a process beside the reference's; the two take turns, so
    that a machine that slows down slows both.

    Args:
        work: str, `"forward"` or `"steps"`.
        contenders: list of `Contender`, without the reference.
        reference: `Contender`.
        folder: path of the checkpoint.
        batches: list of int.
        tokens: int.
        repeats: int, turns of each.

    Yields:
        dict: `name`, `batch`, median `seconds`, the median `ratio` of the
        reference's seconds to these (above 1 is faster), its quartiles `low`
        and `high`, `first` and `loading` seconds, and `distance`, the largest
        difference of logits relative to the largest logit.
    """
    beside = Runner(work, reference, folder)
    for contender in contenders:
        runner = Runner(work, contender, folder)
        for batch in batches:
            turn = {"batch": batch, "tokens": tokens}
            yield _row(contender.name, runner, beside, turn, repeats)
        runner.close()
    beside.close()


def _row(name, runner, beside, turn, repeats):
    first, wanted = runner.first(**turn), beside.first(**turn)["outputs"]
    difference = max(
        abs(a - b)
        for ours, theirs in zip(first["outputs"], wanted, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    pairs = [
        (runner.ask(**turn)["seconds"], beside.ask(**turn)["seconds"])
        for _ in range(repeats)
    ]
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "name": name,
        "batch": turn["batch"],
        "seconds": statistics.median(ours for ours, _ in pairs),
        "reference": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "first": first["first"],
        "loading": runner.loading,
        "distance": difference / max(abs(x) for row in wanted for x in row),
    }
