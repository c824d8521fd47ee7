"""Tables of `claim`: scores, and paired differences."""

import itertools
import json

import numpy as np
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import rerank

from keras_bridgetower.metrics.retrieval import paired_interval

SCORES = (
    "VQA",
    *("R@1, named", "nDCG@10, named"),
    *("R@1, described", "nDCG@10, described"),
)


def write(folder, split):
    """Write the tables as JSON and Markdown; return the Markdown.

    `folder` has a folder for each variant and seed.
    """
    runs = read(folder, split)
    if not runs:
        return f"{folder} has no scores of the split {split!r} yet."
    found = {
        "split": split,
        "runs": {
            name: {seed: means(one) for seed, one in seeds.items()}
            for name, seeds in runs.items()
        },
        "weights": {
            name: next(iter(seeds.values()))["weights"]
            for name, seeds in runs.items()
        },
        "differences": {
            f"{after} - {before}": differences(runs[before], runs[after])
            for before, after in itertools.combinations(runs, 2)
        },
    }
    tables = score_rows(found), difference_rows(found), sort_rows(runs)
    text = "\n".join(map(reports.markdown, tables))
    (folder / f"claims_{split}.json").write_text(json.dumps(found, indent=2))
    (folder / f"claims_{split}.md").write_text(text)
    return text


def read(folder, split):
    """Return the scores by variant and seed, METER first."""
    runs = {}
    for path in sorted(folder.glob(f"*_*/{split}.json")):
        name, seed = path.parent.name.split("_")
        runs.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
    order = ("METER", "BridgeTower", "ManagerTower")
    return {name: runs[name] for name in order if name in runs}


def means(run):
    """Return the means of the lists of a run, in percent."""
    names = [name for name in run if name.startswith(SCORES)]
    return {name: 100 * float(np.mean(run[name])) for name in names}


def differences(before, after):
    """Return the differences of two variants in percent, with intervals.

    `before` and `after` are dicts from seed to scores. Differences are means
    over the seeds that both have; intervals are bootstraps over texts, or over
    scenes, each drawn with all of its questions.
    """
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return {}
    found = {"seeds": seeds}
    for name in SCORES:
        by_seed = np.array(
            [
                np.subtract(after[seed][name], before[seed][name])
                for seed in seeds
            ]
        )
        units = after[seeds[0]]["scene"] if name == "VQA" else None
        mean, low, high = paired_interval(
            100 * by_seed.mean(0), units, seed=rerank.SEED
        )
        found[name] = {
            "difference": mean,
            "interval": [low, high],
            "by seed": (100 * by_seed.mean(1)).tolist(),
        }
    return found


def score_rows(found):
    """Return a row for each variant: means, and deviations over seeds."""
    rows = [("percent", "weights", "seeds", *SCORES)]
    for name, by_seed in found["runs"].items():
        cells = [
            reports.mean_and_spread([one[score] for one in by_seed.values()], 1)
            for score in SCORES
        ]
        weights = f"{found['weights'][name]:,}"
        rows.append((name, weights, len(by_seed), *cells))
    first = next(iter(next(iter(found["runs"].values())).values()))
    # All variants share towers and contrastive head.
    alone = [first.get(f"{score}, by vectors") for score in SCORES]
    cells = ["" if value is None else f"{value:.1f}" for value in alone]
    return [*rows, ("by vectors alone", "", "", *cells)]


def difference_rows(found):
    """Return a row for each two variants, with intervals of 95 %."""
    rows = [("difference", "seeds", *SCORES)]
    for name, scores in found["differences"].items():
        cells = [
            f"{scores[score]['difference']:+.1f} "
            "({:+.1f} to {:+.1f})".format(*scores[score]["interval"])
            for score in SCORES
            if scores
        ]
        if cells:
            rows.append((name, len(scores["seeds"]), *cells))
    return rows


def sort_rows(runs):
    """Return the right answers to each sort of question, in percent."""
    first = next(iter(next(iter(runs.values())).values()))
    sorts = np.array(first["sort"])
    hits = [
        np.mean([one["VQA"] for one in by_seed.values()], 0)
        for by_seed in runs.values()
    ]
    rows = [("question", "count", *runs)]
    for sort in sorted({*first["sort"]}):
        own = sorts == sort
        cells = [f"{100 * one[own].mean():.1f}" for one in hits]
        rows.append((sort, own.sum(), *cells))
    return rows
