r"""Rehearse a recipe on this machine, with the faults of a long run.

    export PYTHONPATH=examples KERAS_BACKEND=jax
    python tools/rehearse.py pretrain_base --hosts 2 --json REPORT.json
    python tools/rehearsal_table.py REPORT.json ...   # for docs/rehearsal.md

Each host is a process of its own. Accumulation, and the shares of warm-up and
decay, are the recipe's; widths, rows and the number of updates are tiny, and
the data is easy-VQA (`pip install easy-vqa`). One run is left alone. Another
is killed on all hosts, later on one host alone, then finds no checkpoint on
that host, and is put right. Both must end alike. Prints a table; the exit code
tells whether all of it is right. It takes a few minutes.
"""

import argparse
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time

import launch
import miniature_data
import rehearsal_table
import rehearse_run

from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.training import train
from keras_bridgetower.training.optim.schedules import count_steps
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe

# Rows of a batch on each host, and samples of a picture of easy-VQA, about.
ROWS = 4
SAMPLES = {"captions": 5, "vqa": 10}
# A warm-up of fewer updates shows no slope.
WARM_UPDATES, LEAST_UPDATES = 2, 12
EVERY = 3
# Seconds in which all hosts must have ended after one of them, and for a run.
SOON, LONG = 60, 1800
# Seconds in which the others must have ended after one was killed.
LOST = 10 if launch.BACKEND == "torch" else SOON
# The last line of a traceback, without its module and what PyTorch puts first.
ERROR = re.compile(
    r"^(?:\[\w+\]: )?(?:\w+\.)*(\w*(?:Error|Exception)\b.*)", re.M
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipes", choices=train.recipe_names(), nargs="+")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, help="file of the reports")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="keeps data and what the runs write"
    )
    settings = parser.parse_args()
    reports = []
    with tempfile.TemporaryDirectory() as made:
        folder = (settings.folder or pathlib.Path(made)).absolute()
        for name in settings.recipes:
            plan = Plan(paper.get(name), settings.hosts, folder)
            reports.append(rehearsed(plan))
            print(rehearsal_table.table(reports[-1:]), flush=True)
            if settings.json:
                settings.json.write_text(json.dumps(reports, indent=1) + "\n")
    rows = [row for report in reports for row in report["rows"]]
    sys.exit(not all(row["right"] for row in rows))


def rehearsed(plan):
    """Rehearse, and return the report."""
    hosts, last = plan.hosts, plan.hosts - 1
    # In the middle of an update, where it has several batches.
    behind = max(1, plan.accumulation // 2)
    first = plan.every + behind
    second = (2 * plan.length // plan.every + 1) * plan.every + behind
    began = time.monotonic()
    runs = {
        "whole": plan.run("whole"),
        "killed": plan.run("part", dict.fromkeys(range(hosts), first)),
        "one killed": plan.run("part", {last: second}),
        "lost": plan.run("part", others={last: "lost"}, soon=True),
        "mended": plan.run("part"),
    }
    return {
        "recipe": plan.recipe.name,
        "backend": launch.BACKEND,
        "hosts": hosts,
        "seconds": time.monotonic() - began,
        **plan.facts(),
        "rows": rehearsal_table.rows(runs, plan.facts(), SOON, LOST),
    }


class Plan:
    """A recipe, its data, and the sizes of its miniature."""

    def __init__(self, recipe, hosts, folder):
        self.recipe, self.hosts = recipe, hosts
        self.folder = folder / f"{recipe.name}-{launch.BACKEND}"
        # Of an earlier rehearsal.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.accumulation = recipe.accumulation
        self.updates = updates_of(recipe.warmup)
        self.every = EVERY * self.accumulation
        self._rows = ROWS * hosts
        task = task_of_recipe.RECORD_TASKS[recipe.task]
        batches = self.updates * self.accumulation // 4
        if batches % self.accumulation == 0:
            # Let epochs end within an update.
            batches += self.accumulation > 1
        self._records = -(-batches * self._rows // SAMPLES.get(task, 1))
        self._data = folder / "data"
        written = self._data / f"{task}-{self._records}"
        miniature_data.build(task, written, self._records)
        samples = open_records(written, "train").num_samples
        self.length = samples // self._rows

    def facts(self):
        tiny = self.recipe.tiny()
        return {
            "updates": self.updates,
            "accumulation": self.accumulation,
            "length": self.length,
            "rows_of_batch": self._rows,
            "peak": tiny.learning_rate,
            "warmup": count_steps(self.recipe.warmup, self.updates),
        }

    def run(self, name, dies=None, others=None, soon=False):
        dies, others = dies or {}, others or {}
        number = len(list(self.folder.glob("*.jsonl")))
        paths, commands = [], []
        for host in range(self.hosts):
            output = self.folder / others.get(host, name)
            output.mkdir(exist_ok=True)
            if not (output / "easy_vqa").exists():
                (output / "easy_vqa").symlink_to(self._data)
            paths.append(self.folder / f"story-{number + host:02d}.jsonl")
            paths[-1].touch()
            commands.append(
                [
                    *(rehearse_run.__file__, paths[-1], dies.get(host, -1)),
                    *(self.recipe.name, "--output", output),
                    *("--records", self._records, "--every", EVERY, "--set"),
                    f"accumulation={self.accumulation}",
                    f"batch_size={self._rows * self.accumulation}",
                    f"steps={self.updates}",
                ]
            )
        environments = launch.several_processes(self.hosts)
        processes = launch.started(commands, environments, stderr=None)
        ends = ended(processes, bool(dies) or soon)
        return [
            outcome_of(path, *end)
            for path, end in zip(paths, ends, strict=True)
        ]


def ended(processes, soon):
    """Wait for hosts, and kill those that do not end; return code and delay."""
    began, ends = time.monotonic(), {}
    while len(ends) < len(processes):
        time.sleep(0.05)
        now = time.monotonic()
        for process in set(processes) - set(ends):
            if process.poll() is not None:
                ends[process] = now
        first = min(ends.values(), default=now)
        waits = soon or any(process.returncode for process in ends)
        if now > began + LONG or (waits and now > first + SOON):
            for process in set(processes) - set(ends):
                process.kill()
                process.wait()
            break
    first = min(ends.values(), default=began)
    return [
        (one.returncode, ends[one] - first) if one in ends else (None, None)
        for one in processes
    ]


def updates_of(warmup):
    """Return the fewest updates that keep the recipe's share of warm-up."""
    count = LEAST_UPDATES
    while warmup and count_steps(warmup, count) < WARM_UPDATES:
        count += 1
    return max(count, 2 * count_steps(warmup, count))


def outcome_of(path, code, waited):
    stories = list(map(json.loads, pathlib.Path(path).read_text().splitlines()))
    errors = list(ERROR.finditer(pathlib.Path(f"{path}.err").read_text()))
    printed = pathlib.Path(f"{path}.out").read_text()
    scores = re.findall(r"^(?:validation|test): .*", printed, re.M)
    reads = [story["read"] for story in stories if "read" in story]
    return {
        "code": code,
        "waited": waited,
        "error": errors[-1].group(1) if errors else "",
        "batches": [story for story in stories if "batch" in story],
        "read": reads[0] if reads else [],
        "scores": scores,
    }


if __name__ == "__main__":
    main()
