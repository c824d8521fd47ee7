"""Time passes or steps of all libraries, backends and precisions.

    python tools/benchmarks/benchmark_turns.py
    python tools/benchmarks/benchmark_turns.py --size large --batches 1
    python tools/benchmarks/benchmark_turns.py --only "torch bfloat16"
    python tools/benchmarks/benchmark_turns.py --work steps --batches 4

A model of transformers with random weights is saved to a folder, and each
contender opens that folder in a process of its own, beside one with
transformers in float32. The two take turns. The ratio is transformers' time to
the contender's: above 1 is faster. Needs the extras `dev` and `export`.
"""

import argparse
import csv
import pathlib
import platform
import subprocess
import sys
import tempfile

from turns.contenders import CONTENDERS
from turns.contenders import REFERENCE
from turns.contenders import TRAINED
from turns.rounds import take_turns

# What processors have for these precisions.
UNITS = ("avx512_bf16", "amx_bf16", "avx512_vnni", "amx_int8")
# What is timed, and who takes part.
WORK = {"forward": CONTENDERS, "steps": TRAINED}
SIZES = ("base", "large", "small")
COLUMNS = (
    *("name", "batch", "seconds", "reference", "ratio", "low", "high"),
    *("first", "loading", "distance"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", choices=WORK, default="forward")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--side", type=int, help="pixels, such as 384")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="+", help="names, as in the table")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("out/benchmark")
    )
    settings = parser.parse_args()
    contenders = WORK[settings.work]
    names = settings.only or [n for n in contenders if n != REFERENCE]
    settings.output.mkdir(parents=True, exist_ok=True)
    rows = []
    print(f"{machine()}\n\n{heading()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        save_peer(settings, folder)
        for row in take_turns(
            settings.work,
            [contenders[name] for name in names],
            contenders[REFERENCE],
            folder,
            settings.batches,
            settings.tokens,
            settings.repeats,
        ):
            rows.append(row)
            print(line(row), flush=True)
    path = settings.output / f"{settings.work}.csv"
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    draw(rows).savefig(path.with_suffix(".png"), dpi=110)
    print(f"\n{path}, {path.with_suffix('.png').name}")


def save_peer(settings, folder):
    """Save the random model, by a process that then gives its memory back."""
    made = (
        "import sys, peer; size = getattr(peer, sys.argv[1].upper());"
        "side = int(sys.argv[2]) or size['side'];"
        "peer.peer(size | {'side': side}).save_pretrained(sys.argv[3])"
    )
    side = str(settings.side or 0)
    arguments = [sys.executable, "-c", made, settings.size, side, folder]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def machine():
    """What was measured on, in one line."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [x.partition(": ")[2] for x in lines if x.startswith("model name")]
    flags = next((x.split() for x in lines if x.startswith("flags")), [])
    units = [name for name in UNITS if name in flags]
    told = ", ".join(units) or "no units for bfloat16"
    name = models[0] if models else platform.processor()
    return f"{name}, {len(models)} cores, {told}"


def heading():
    """The first lines of the Markdown table."""
    columns = ("", "batch", "seconds", "ratio", "quartiles", "first run")
    columns += ("distance",)
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def line(row):
    """A row of the Markdown table."""
    values = (
        row["name"],
        row["batch"],
        f"{row['seconds']:.3f}",
        f"{row['ratio']:.2f}",
        f"{row['low']:.2f} - {row['high']:.2f}",
        f"{row['first']:.1f} s",
        f"{row['distance']:.0e}",
    )
    return f"| {' | '.join(map(str, values))} |"


def draw(rows):
    """Bars of the ratios, with their quartiles."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.3 * len(rows) + 1.2))
    places = range(len(rows))
    ratios = [row["ratio"] for row in rows]
    spread = [
        [row["ratio"] - row["low"] for row in rows],
        [row["high"] - row["ratio"] for row in rows],
    ]
    axes.barh(places, ratios, xerr=spread, color="#0072b2", ecolor="#333333")
    axes.set_yticks(
        places, [f"{row['name']}, batch {row['batch']}" for row in rows]
    )
    axes.invert_yaxis()
    axes.axvline(1, color="#666666", ls="--")
    axes.set_xlabel(f"times as fast as {REFERENCE}")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
