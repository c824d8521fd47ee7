"""Time this package beside transformers, on all backends and precisions.

    python tools/benchmarks/benchmark.py all
    python tools/benchmarks/benchmark.py forward --batches 1 4 16
    python tools/benchmarks/benchmark.py forward --side 288 384
    python tools/benchmarks/benchmark.py steps vqa --only "torch float32"
    python tools/benchmarks/benchmark.py first loading import --size small base

A model of transformers with random weights is saved. Each contender opens it
in its own process, beside a process of its reference: transformers in float32
on PyTorch, unless `turns/works.py` names another. The two take turns. The
ratio is the reference's time to the contender's: above 1 is faster. A turn
ends when its outputs are in NumPy, so that an accelerator is done.

Writes README.md with all tables, results.csv, and a plot of each work. Needs
the extras `dev` and `viz`, and `export` for the runtimes.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from turns import report
from turns.rounds import ContenderFailed
from turns.rounds import Rounds
from turns.rounds import Saved
from turns.rounds import environment
from turns.works import WORKS

DATA = "data"  # It has no model: it times reading.
# "small" has the width of the tiny presets, which transformers cannot run.
SIZES = ("base", "large", "small")
TF32 = (
    " On a GPU, JAX and TensorFlow multiply float32 matrices in TF32 by "
    "default, and PyTorch does not: see the distances."
)
HERE = pathlib.Path(__file__).parent


def main():
    settings = parsed()
    settings.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        models = settings.models or temporary
        Report(settings).run(models)
    print(f"\n{settings.output / 'README.md'}")


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = (*WORKS, DATA)
    parser.add_argument("works", nargs="+", choices=(*names, "all"))
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["base"])
    parser.add_argument(
        "--side",
        type=int,
        nargs="+",
        default=[None],
        help="of pictures in pixels, such as 288 384",
    )
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9, help="2 or more")
    known = sorted({name for work in WORKS.values() for name in work.named()})
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("out/benchmark")
    )
    parser.add_argument(
        "--models",
        type=pathlib.Path,
        help="folder that keeps saved and exported models for further runs",
    )
    settings = parser.parse_args()
    if "all" in settings.works:
        settings.works = names
    return settings


class Report:
    """The measurements of a run so far; files are written after each work."""

    def __init__(self, settings):
        self.settings = settings
        self.gpu = report.gpu()
        self.rows, self.parts = [], [self.heading()]

    def heading(self):
        command = shlex.join(["python", *sys.argv])
        return (
            "# Benchmark\n\n"
            f"    {command}\n\n"
            f"* Processor: {report.processor()}\n"
            f"* GPU: {self.gpu or 'none'}\n"
            f"* {report.versions()}\n\n"
            f"Medians of {self.settings.repeats} turns; ratios above 1 are "
            "faster than the reference. A turn ends when its outputs are in "
            f"NumPy.{TF32 if self.gpu else ''}"
        )

    def run(self, models):
        print(self.parts[0], flush=True)
        for name in self.settings.works:
            part = self.data if name == DATA else self.work
            self.parts.append(part(name, models))
            print(f"\n{self.parts[-1]}", flush=True)
            text = "\n\n".join(self.parts)
            (self.settings.output / "README.md").write_text(f"{text}\n")
            report.write_csv(self.settings.output / "results.csv", self.rows)

    def work(self, name, models):
        work, rows, notes = WORKS[name], [], []
        for size in self.settings.size:
            for side in self.settings.side:
                saved = Saved(models, size, side)
                for row in self.measured(work, saved, notes):
                    sizes = {"size": size, "side": saved.pixels()}
                    rows.append({"work": name, **sizes, **row})
                    self.rows.append(rows[-1])
                    print(f"{name}: {_line(rows[-1])}", flush=True)
        parts = [f"## {work.title}"]
        if rows:
            report.draw(self.settings.output / f"{name}.png", rows)
            parts += [report.markdown(rows, work), f"![ratios]({name}.png)"]
        parts += notes
        return "\n\n".join(parts)

    def measured(self, work, saved, notes):
        """Yield the rows of one work with one model; note what is left out."""
        batches = work.batches
        if not work.fresh:
            batches = self.settings.batches or batches
        only = self.settings.only
        rounds = Rounds(work, saved, self.settings.repeats)
        with contextlib.closing(rounds):
            for contender in work.contenders:
                if contender.is_reference_only():
                    continue
                if only and contender.name not in only:
                    continue
                reason = contender.left_out_because(self.gpu)
                if reason is None:
                    try:
                        yield from rounds.rows(
                            contender, batches, self.settings.tokens
                        )
                        continue
                    except ContenderFailed as error:
                        reason = str(error)
                notes.append(f"Left out: {contender.name}: {reason}.")
                print(notes[-1], flush=True)

    def data(self, name, models):
        program = [sys.executable, str(HERE / "benchmark_data.py")]
        backend = os.environ.get("KERAS_BACKEND", "torch")
        process = subprocess.run(
            [*program, "--repeats", str(self.settings.repeats)],
            env=environment(backend, pathlib.Path(models) / "keras"),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return f"## Data\n\n{process.stdout.strip()}"


def _line(row):
    return (
        f"{row['name']}, {row['size']} {row['side']} px, batch "
        f"{row['batch']}: {row['seconds']:.3g} s, {row['ratio']:.2f} "
        f"({row['low']:.2f} - {row['high']:.2f})"
    )


if __name__ == "__main__":
    main()
