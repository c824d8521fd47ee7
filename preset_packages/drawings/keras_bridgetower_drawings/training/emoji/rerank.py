"""Measure whether matching improves the list that the vectors find.

    python -m keras_bridgetower_drawings.training.emoji.rerank runs/emoji

The hundred free descriptions search all emoji of each artist, and the matching
head reorders the first ten. Prints the scores of both lists, and the mean
difference with its 95 % interval by a paired bootstrap over the texts. "all
artists" has the mean of each text.
"""

import json

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import paired_interval
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.run import Run

FIRST = 10  # Pictures of a list that are ordered again.
SEED = 7


def ndcg(right, count):
    """Compute nDCG@10 of each list.

    `right`, bool `(texts, 10)`, marks the right ones of the first ten; `count`
    is the number of right pictures of each text.
    """
    gains = 1 / np.log2(np.arange(FIRST) + 2)
    best = np.cumsum(gains)[np.clip(count, 1, FIRST) - 1]
    return right @ gains / best


def scores_of(right, count):
    """Return arrays `(texts,)` by the name of the score."""
    return {
        "nDCG@10": ndcg(right, count),
        "R@1": right[:, 0].astype(float),
        "R@5": right[:, :5].any(1).astype(float),
    }


def both_lists(task, embedder, shown, asked, wanted):
    """Return the scores of the list by vectors, and of the re-ranked one.

    `shown` is the pair that `score.embedded` returns, `asked` and `wanted` are
    those of `score.descriptions`.
    """
    drawn, images = shown
    near = embedder.embed(texts=asked, batch_size=100) @ images.T
    first = np.argsort(-near, 1, kind="stable")[:, :FIRST]
    found = task.score(
        [drawn.pictures[place] for place in first.ravel()],
        np.repeat(asked, FIRST).tolist(),
        batch_size=110,
    ).reshape(first.shape)
    again = np.take_along_axis(
        first, np.argsort(-found, 1, kind="stable"), axis=1
    )
    right = np.stack([np.isin(drawn.looks, [*looks]) for looks in wanted])
    count = right.sum(1)
    return [
        scores_of(np.take_along_axis(right, order, 1), count)
        for order in (first, again)
    ]


def compare(before, after):
    """Return a dict from the name of a score to its numbers."""
    found = {}
    for name in before:
        off = after[name] - before[name]
        mean, low, high = paired_interval(off, seed=SEED)
        found[name] = {
            "by vectors": round(float(before[name].mean()), 3),
            "re-ranked": round(float(after[name].mean()), 3),
            "difference": round(mean, 3),
            "95 % interval": f"{low:.3f} to {high:.3f}",
        }
    return found


def means(several):
    """Return the mean over the artists of each text's scores."""
    return {
        name: np.mean([one[name] for one in several], 0) for name in several[0]
    }


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--preset", default="bridgetower_tiny_emoji_retrieval")
    settings = parser.parse_args()
    run = Run(settings.folder, 0)
    task = kbt.BridgeTowerRetrieval.from_preset(settings.preset)
    embedder = kbt.BridgeTowerContrastive.from_preset(settings.preset)
    asked, wanted = score.descriptions(run)
    lists = {}
    for artist in world.ARTISTS:
        shown = score.embedded(run, embedder, artist)
        lists[artist] = both_lists(task, embedder, shown, asked, wanted)
    lists["all artists"] = [*map(means, zip(*lists.values(), strict=True))]
    found = {
        f"{name}, {kind}": numbers
        for name, both in lists.items()
        for kind, numbers in compare(*both).items()
    }
    for row, numbers in found.items():
        print(f"{row}: {numbers}")
    (run.folder / "rerank.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
