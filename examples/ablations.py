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

Writes a table beside the paper's numbers, as Markdown and CSV, and a plot. An
interrupted run resumes, and more `--seeds` are added. `--count-only`, the
default without a study, prints the parameters at the paper's base size and
trains nothing. `encoders --costs` measures all encoders of the library and the
managers at base width, see encoder_costs.py.
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
import reports
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
    parser.add_argument("--costs", action="store_true")
    settings = parser.parse_args()
    if settings.costs:
        if settings.study != "encoders":
            parser.error("--costs goes with the study `encoders`")
        import encoder_costs  # It sets the backend.

        print(encoder_costs.table(settings.output or encoder_costs.OUTPUT))
        return
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
        rows = [row_of(v, parameters[v.name], [], "") for v in variants]
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
    scores = [v.paper.get("vqa", np.nan) for v in variants]
    left.plot(scores, places, "o", color="#2a6f97")
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
    output = folder_of(output, kept)
    bench = Bench(settings, output, size)
    results = {variant.name: [] for variant in variants}
    for seed in settings.seeds:
        for variant in variants:
            name = f"{variant.name}, seed {seed}"
            found = once(
                output / f"{name.replace('/', '-')}.json",
                lambda variant=variant, seed=seed: run(bench, variant, seed),
            )
            results[variant.name].append(found)
            print(f"{name}: {found}", flush=True)
    blind = f"{pictures.BLIND_TEST_SCORES['overall']:.2f}"
    rows = [
        row_of(v, parameters[v.name], results[v.name], blind) for v in variants
    ]
    title, table = f"Ablation: {settings.study}", markdown(rows)
    text = f"# {title}\n\n{table}\n{note_of(settings, results)}\n"
    (output / "table.md").write_text(text)
    with open(output / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    scores = {
        name: [run["vqa"]["overall"] for run in found]
        for name, found in results.items()
    }
    figure = figures.scores(scores, title, "VQA score on test, %")
    figure.savefig(output / "figure.png", dpi=150)
    print(table)


def run(bench, variant, seed):
    started = time.time()
    vqa, rsum = bench.vqa(variant, seed), bench.rsum(variant, seed)
    seconds = round(time.time() - started, 1)
    return {"vqa": vqa, "rsum": rsum, "seconds": seconds}


def note_of(settings, results):
    first = [runs[0]["seconds"] for runs in results.values()]
    values = ", ".join(f"{key} {getattr(settings, key)}" for key in KEYS[1:])
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    return (
        "VQA: % of the 9,673 questions of easy-VQA's official test split; "
        "blind: the most frequent answer to each question. RSUM: of 50 test "
        "pictures with five captions each, where `--retrieval-steps` asked "
        "for it. Mean ± standard deviation over the seeds "
        f"{settings.seeds}. The paper's columns are VQAv2 test-dev and "
        "Flickr30K RSUM of base-size models without vision-language "
        "pre-training; the parameters here are those of the tiny size.\n\n"
        f"Settings: {values}. Encoders of {TINY.blocks} blocks, width "
        f"{TINY.width}.\n\nMachine: {os.cpu_count()} CPU cores "
        f"({platform.machine()}), OMP_NUM_THREADS={threads}, "
        f"{keras.config.backend()} backend, Keras {keras.__version__}; median "
        f"{sorted(first)[len(first) // 2]:.0f} seconds a run."
    )


COLUMNS = (
    *("variant", "parameters", "VQA", "RSUM", "blind"),
    *("parameters, paper", "VQA, paper", "RSUM, paper"),
)


def folder_of(path, settings):
    """Make the folder of results, or refuse that of other settings."""
    file = pathlib.Path(path, "settings.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = once(file, lambda: settings)
    settings = json.loads(json.dumps(settings))
    unlike = [
        f"{name}={settings.get(name)!r}, there {kept.get(name)!r}"
        for name in sorted({*kept, *settings})
        if kept.get(name) != settings.get(name)
    ]
    if unlike:
        raise ValueError(
            f"`--output` must be a new folder, or one of the same settings. "
            f"Received: --output {path}, which holds runs of others: "
            f"{', '.join(unlike)}"
        )
    return file.parent


def once(file, make):
    """Return the values in a JSON file, written whole or not at all."""
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(make(), indent=2) + "\n")
        part.replace(file)
    return json.loads(file.read_text())


def mean_and_spread(values):
    """Return mean and deviation over the seeds that have the score."""
    values = [value for value in values if value is not None]
    return reports.mean_and_spread(values, 2) if values else ""


def row_of(variant, parameters, runs, blind):
    paper = variant.paper
    cells = (
        variant.name,
        parameters,
        mean_and_spread([run["vqa"]["overall"] for run in runs]),
        mean_and_spread([run["rsum"] for run in runs]),
        blind,
        paper.get("parameters", ""),
        f"{paper['vqa']:.2f}" if "vqa" in paper else "",
        f"{paper['rsum']:.1f}" if "rsum" in paper else "",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def markdown(rows):
    """Return the table, without columns that are empty in every row."""
    columns = [c for c in COLUMNS if any(row[c] for row in rows)]
    cells = [[row[column] for column in columns] for row in rows]
    return reports.markdown([columns, *cells])


if __name__ == "__main__":
    main()
