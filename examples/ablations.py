"""Title: Count the parameters of the paper's ablations
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Counts the parameters of the paper's bridges at base size and draws
    them beside the scores that the paper reports. The name of another study
    counts its variants.
Accelerator: none; half a minute on one CPU core

    python examples/ablations.py
    python examples/ablations.py layers

Prints a table beside the paper's numbers, at the paper's base size, and draws a
plot. It trains nothing: docs/results has trained tiny variants.
"""

import argparse
import pathlib

import example
import numpy as np
from ablation_variants import BASE
from ablation_variants import COUNTS
from ablation_variants import STUDIES
from ablation_variants import count_text
from keras_bridgetower_drawings.training import reports

COLUMNS = (
    *("variant", "parameters", "parameters, paper"),
    *("VQA, paper", "RSUM, paper"),
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "study", choices=STUDIES, nargs="?", default="definition"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("out", "ablations")
    )
    settings = parser.parse_args()
    study = STUDIES[settings.study]
    variants = study.variants(BASE)
    counts = [COUNTS[study.counted](v, BASE) for v in variants]
    parameters = {
        v.name: count_text(count)
        for v, count in zip(variants, counts, strict=True)
    }
    print(f"Parameters of the {study.counted}, base size:\n")
    print(markdown(variants, parameters))
    example.save(
        counted(settings.study, study.counted, variants, counts),
        settings.output,
        f"{settings.study}.png",
        "what the paper reports, by the number of parameters",
    )


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


def markdown(variants, parameters):
    """Return a Markdown table, without columns that are empty in every row."""
    rows = [
        (
            variant.name,
            parameters[variant.name],
            variant.paper.get("parameters", ""),
            f"{variant.paper['vqa']:.2f}" if "vqa" in variant.paper else "",
            f"{variant.paper['rsum']:.1f}" if "rsum" in variant.paper else "",
        )
        for variant in variants
    ]
    used = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    return reports.markdown([[r[i] for i in used] for r in (COLUMNS, *rows)])


if __name__ == "__main__":
    main()
