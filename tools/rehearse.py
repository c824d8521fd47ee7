r"""Rehearse a recipe on this machine, with the faults of a long run.

    export PYTHONPATH=examples KERAS_BACKEND=jax
    python tools/rehearse.py pretrain_base --hosts 2 --json REPORT.json
    python tools/rehearsal_table.py REPORT.json ...   # for docs/rehearsal.md

Each host is a process. Accumulation, warm-up and decay are the recipe's; sizes
are tiny, the data is easy-VQA (`pip install easy-vqa`). One run is undisturbed.
Another is killed on all hosts, later on one, then finds no checkpoint on that
host, and is repaired. Both must end alike. Prints a table in a few minutes; the
exit code is 0 if all of it is right.
"""

import argparse
import itertools
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
            recipe = paper.get(name)
            reports.append(rehearsed(recipe, settings.hosts, folder))
            print(rehearsal_table.table(reports[-1:]), flush=True)
            if settings.json:
                settings.json.write_text(json.dumps(reports, indent=1) + "\n")
    rows = [row for report in reports for row in report["rows"]]
    sys.exit(not all(row["right"] for row in rows))


def rehearsed(recipe, hosts, folder):
    """Rehearse, and return the report."""
    began, last = time.monotonic(), hosts - 1
    plan = Plan(recipe, hosts, folder)
    facts, accumulation = plan.facts, recipe.accumulation
    every = EVERY * accumulation
    # In the middle of an update, where it has several batches.
    behind = max(1, accumulation // 2)
    first = every + behind
    second = (2 * facts["length"] // every + 1) * every + behind
    runs = {
        "whole": plan.run("whole"),
        "killed": plan.run("part", dict.fromkeys(range(hosts), first)),
        "one killed": plan.run("part", {last: second}),
        "lost": plan.run("part", others={last: "lost"}, soon=True),
        "mended": plan.run("part"),
    }
    return {
        "recipe": recipe.name,
        "backend": launch.BACKEND,
        "hosts": hosts,
        "seconds": time.monotonic() - began,
        **facts,
        "rows": rehearsal_table.rows(runs, facts, SOON, LOST),
    }


class Plan:
    """A recipe, its data, and the sizes of its miniature."""

    def __init__(self, recipe, hosts, folder):
        self._hosts, self._data = hosts, folder / "data"
        self._folder = folder / f"{recipe.name}-{launch.BACKEND}"
        # Of an earlier rehearsal.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        rows, accumulation = ROWS * hosts, recipe.accumulation
        updates = updates_of(recipe.warmup)
        task = task_of_recipe.RECORD_TASKS[recipe.task]
        batches = updates * accumulation // 4
        if batches % accumulation == 0:
            # Let epochs end within an update.
            batches += accumulation > 1
        records = -(-batches * rows // SAMPLES.get(task, 1))
        written = self._data / f"{task}-{records}"
        miniature_data.build(task, written, records)
        samples = open_records(written, "train").num_samples
        self.facts = {
            "updates": updates,
            "accumulation": accumulation,
            "length": samples // rows,
            "rows_of_batch": rows,
            "peak": recipe.tiny().learning_rate,
            "warmup": count_steps(recipe.warmup, updates),
        }
        self._options = [
            *("--records", records, "--every", EVERY, "--set"),
            f"accumulation={accumulation}",
            f"batch_size={rows * accumulation}",
            f"steps={updates}",
        ]
        self._command = rehearse_run.__file__, recipe.name
        self._stories = itertools.count()

    def run(self, name, dies=None, others=None, soon=False):
        """Run all hosts, and return the outcome of each.

        `dies` has the batch at which a host is killed, `others` the folder of
        a host that does not write into `name`.
        """
        script, recipe = self._command
        paths, commands = [], []
        for host in range(self._hosts):
            output = self._folder / (others or {}).get(host, name)
            output.mkdir(exist_ok=True)
            if not (output / "easy_vqa").exists():
                (output / "easy_vqa").symlink_to(self._data)
            paths.append(self._folder / f"story-{next(self._stories):02d}")
            paths[-1].touch()
            dies_at = (dies or {}).get(host, -1)
            commands.append(
                [script, paths[-1], dies_at, recipe, "--output", output]
                + self._options
            )
        environments = launch.several_processes(self._hosts)
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
    stories = list(map(json.loads, path.read_text().splitlines()))
    errors = list(ERROR.finditer(path.with_suffix(".err").read_text()))
    printed = path.with_suffix(".out").read_text()
    return {
        "code": code,
        "waited": waited,
        "error": errors[-1].group(1) if errors else "",
        "batches": [story for story in stories if "batch" in story],
        "read": next((s["read"] for s in stories if "read" in s), []),
        "scores": re.findall(r"^(?:validation|test): .*", printed, re.M),
    }


if __name__ == "__main__":
    main()
