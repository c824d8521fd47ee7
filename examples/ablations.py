"""Title: Repeat an ablation of the paper, in one command for each table
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Counts the parameters of the paper's bridges at base size and draws
    them beside the scores that the paper reports. With the name of a study it
    trains tiny variants, and writes a table in the paper's layout.
Accelerator: none; half a minute on one CPU core to count, two to four minutes
    for each variant to train

    python examples/ablations.py
    KERAS_BACKEND=torch python examples/ablations.py definition
    python examples/ablations.py layers --count-only
    python examples/ablations.py bridges --seeds 0 1 2 --retrieval-steps 200

The table stands beside the paper's own numbers, as Markdown and CSV, with a
plot. A run that was interrupted goes on where it stopped, more `--seeds` are
added to those that are there. `--count-only` prints the column of parameters of
the paper's base size and trains nothing; that is also what happens without the
name of a study.
"""

import argparse
import csv
import json
import os
import pathlib
import platform
import time

import example
import keras
import numpy as np
from ablation_variants import BASE
from ablation_variants import COUNTS
from ablation_variants import STUDIES
from ablation_variants import TINY
from ablation_variants import count_text

from keras_bridgetower.analysis import figures

ROOT = pathlib.Path(__file__).parent.parent

# Options that are numbers, and their defaults.
NUMBERS = {
    **{"steps": 300, "batch_size": 64, "learning_rate": 5e-4},
    **{"tower_epochs": 30, "text_steps": 300, "tower_batch_size": 64},
    # Of matching, for the column RSUM; without them it stays empty.
    **{"retrieval_steps": 0, "retrieval_batch_size": 32},
}
# What the numbers of a run depend on, beside its variant and seed.
KEYS = ("study", *NUMBERS)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES, nargs="?")
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    for name, default in NUMBERS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default)
    parser.add_argument("--count-only", action="store_true")
    settings = parser.parse_args()
    if settings.study is None:
        settings.study, settings.count_only = "definition", True
    study = STUDIES[settings.study]
    size = BASE if settings.count_only else TINY
    variants = study.variants(size)
    counts = [COUNTS[study.counted](v, size) for v in variants]
    parameters = {
        v.name: count_text(count)
        for v, count in zip(variants, counts, strict=True)
    }
    if settings.count_only:
        rows = [row_of(v, parameters[v.name], [], None) for v in variants]
        print(f"Parameters of the {study.counted}, base size:\n")
        print(markdown(rows))
        example.save(
            counted(settings.study, study.counted, variants, counts),
            settings.output or pathlib.Path("out", "ablations"),
            f"{settings.study}.png",
            "what the paper reports, by the number of parameters",
        )
        return
    output = settings.output or ROOT / "runs" / f"ablation-{settings.study}"
    train(settings, output, size, variants, parameters)


def counted(name, part, variants, counts):
    figure = example.new_figure(9, 1 + 0.36 * len(variants))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(variants))
    left.plot([v.paper.vqa for v in variants], places, "o", color="#2a6f97")
    left.set(xlabel="VQAv2 test-dev, %", title="What the paper reports")
    left.locator_params(axis="x", nbins=4)
    bars = right.barh(places, counts, color="#bbbbbb")
    right.bar_label(bars, [count_text(count) for count in counts], padding=3)
    right.margins(x=0.2)
    right.xaxis.set_major_formatter(lambda count, _: count_text(count))
    right.set(xlabel=f"parameters of the {part}", title="Counted, base size")
    left.set_yticks(places, [v.name for v in variants])
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Ablation: {name}")
    return figure


def train(settings, output, size, variants, parameters):
    """Run what is not there yet, and write the table anew."""
    # Reading easy-VQA takes TensorFlow, counting does not.
    from ablation_training import Bench
    from easy_world import pictures

    kept = {key: getattr(settings, key) for key in KEYS}
    kept |= {"backend": keras.config.backend(), "size": repr(TINY)}
    runs = RunDirectory(output, kept)
    bench = Bench(settings, runs.path, size)
    results = {}
    for seed in settings.seeds:
        for variant in variants:
            found = runs.once(
                f"{variant.name}, seed {seed}",
                lambda variant=variant, seed=seed: run(bench, variant, seed),
            )
            results.setdefault(variant.name, []).append(found)
            print(f"{variant.name}, seed {seed}: {found}", flush=True)
    blind = pictures.BLIND_TEST_SCORES["overall"]
    rows = [
        row_of(v, parameters[v.name], results[v.name], blind) for v in variants
    ]
    scores = {
        name: [run["vqa"]["overall"] for run in found]
        for name, found in results.items()
    }
    title = f"Ablation: {settings.study}"
    write(output, title, rows, scores, note_of(settings, results))
    print(markdown(rows))


def run(bench, variant, seed):
    started = time.time()
    vqa, rsum = bench.vqa(variant, seed), bench.rsum(variant, seed)
    seconds = round(time.time() - started, 1)
    return {"vqa": vqa, "rsum": rsum, "seconds": seconds}


def note_of(settings, results):
    first = [runs[0] for runs in results.values()]
    seconds = [run["seconds"] for run in first if "seconds" in run]
    values = ", ".join(f"{key} {getattr(settings, key)}" for key in KEYS[1:])
    return (
        "VQA: % of the 9,673 questions of easy-VQA's official test split; "
        "blind: the most frequent answer to each question. RSUM: of 50 test "
        "pictures with five captions each, where `--retrieval-steps` asked "
        "for it. Mean ± standard deviation over the seeds "
        f"{settings.seeds}. The paper's columns are VQAv2 test-dev and "
        "Flickr30K RSUM of base-size models without vision-language "
        "pre-training; the parameters here are those of the tiny size.\n\n"
        f"Settings: {values}. Encoders of {TINY.blocks} blocks, width "
        f"{TINY.width}.\n\nMachine: {machine()}; median "
        f"{sorted(seconds)[len(seconds) // 2]:.0f} seconds a run."
    )


SETTINGS = "settings.json"
COLUMNS = (
    *("variant", "parameters", "VQA", "RSUM", "blind"),
    *("parameters, paper", "VQA, paper", "RSUM, paper"),
)


class RunDirectory:
    """Results of finished runs; the folder of other settings is refused."""

    def __init__(self, path, settings):
        self.path = pathlib.Path(path)
        settings = json.loads(json.dumps(settings))
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / SETTINGS
        if not file.exists():
            _write(file, settings)
        kept = json.loads(file.read_text())
        unlike = [
            f"{name}={settings.get(name)!r}, there {kept.get(name)!r}"
            for name in sorted({*kept, *settings})
            if kept.get(name) != settings.get(name)
        ]
        if unlike:
            raise ValueError(
                f"`--output` must be a new folder, or one of the same "
                f"settings. Received: --output {self.path}, which holds runs "
                f"of others: {', '.join(unlike)}"
            )

    def once(self, name, run):
        """Return the kept result of a run, or that of `run()`."""
        file = self.path / f"{name.replace('/', '-')}.json"
        if not file.exists():
            _write(file, run())
        return json.loads(file.read_text())


def _write(path, values):
    """Write JSON whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values, indent=2) + "\n")
    part.replace(path)


def mean_and_spread(values):
    """`"84.10 ± 0.52"`: mean and standard deviation (n - 1) over seeds."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    mean = f"{np.mean(values):.2f}"
    return f"{mean} ± {np.std(values, ddof=1):.2f}" if values[1:] else mean


def row_of(variant, parameters, runs, blind):
    paper = variant.paper
    cells = (
        variant.name,
        parameters,
        mean_and_spread([run["vqa"]["overall"] for run in runs]),
        mean_and_spread([run["rsum"] for run in runs]),
        "" if blind is None else f"{blind:.2f}",
        paper.parameters or "",
        "" if paper.vqa is None else f"{paper.vqa:.2f}",
        "" if paper.rsum is None else f"{paper.rsum:.1f}",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def markdown(rows):
    """Return the table, without columns that are empty in every row."""
    columns = [c for c in COLUMNS if any(row[c] for row in rows)]
    lines = [columns, ["---"] * len(columns)]
    lines += [[row[column] for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine():
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"{keras.config.backend()} backend, Keras {keras.__version__}"
    )


def write(path, title, rows, scores, note):
    """Write `table.md`, `table.csv` and `figure.png` into a folder."""
    path = pathlib.Path(path)
    page = f"# {title}\n\n{markdown(rows)}\n{note}\n"
    (path / "table.md").write_text(page)
    with open(path / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    figure = figures.scores(scores, title, "VQA score on test, %")
    figure.savefig(path / "figure.png", dpi=150)


if __name__ == "__main__":
    main()
