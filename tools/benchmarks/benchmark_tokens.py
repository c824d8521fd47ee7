"""Rank lists of trained presets with fewer image tokens: nDCG@10 and seconds.

    export PYTHONPATH=examples KERAS_BACKEND=torch
    python tools/benchmarks/benchmark_tokens.py runs/emoji runs/photos

Texts search all pictures of held-out things, as in `tools/mteb_results.py`, and
the first 20 of each list are reranked by stored states. Writes tokens.csv and
tokens.png into the second folder.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
from emoji_world import rerank
from turns import report

import keras_bridgetower as kbt

sys.path.append(str(pathlib.Path(__file__).parents[1]))
LISTED = 20
SHARES = (1, 3 / 4, 1 / 2, 1 / 3, 1 / 4, 1 / 8)  # Of the tokens.


def main():
    import mteb_results

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("emoji", help="folder of the emoji world's packages")
    parser.add_argument("photos", type=pathlib.Path)
    settings = parser.parse_args()
    rows = []
    for preset, worlds in (
        ("bridgetower_tiny_emoji_retrieval", mteb_results.emoji_lists),
        ("bridgetower_small_photo_retrieval", mteb_results.photo_lists),
    ):
        folder = settings.emoji if "emoji" in preset else settings.photos
        models = kbt.search.SearchModels.from_preset(preset)
        for name, pictures, texts, fits in worlds(folder):
            for row in scored(models, pictures, texts, fits):
                rows.append({"lists": name, **row})
                print(rows[-1], flush=True)
    report.write_csv(settings.photos / "tokens.csv", rows)
    panel = rows, "ms_a_pair", "ndcg", "lists"
    report.curves(settings.photos / "tokens.png", panel, note="tokens")


def scored(models, pictures, texts, fits):
    """Yield a dict for each number of image tokens."""
    vectors, states = models.contrastive.embed_with_states(list(pictures))
    near = models.contrastive.embed(texts=texts) @ vectors.T
    lists = np.argsort(-near, 1, kind="stable")[:, :LISTED]
    whole = states.shape[2]
    scorers = [models.state_scorer(text) for text in texts]
    before = ndcg(fits, lists)
    for share in SHARES:
        tokens = None if share == 1 else max(2, round(share * whole))
        again, seconds = [], []
        for scorer, listed, similar in zip(scorers, lists, near, strict=True):
            # The first call of a width compiles.
            scorer(states[listed], tokens)
            started = time.perf_counter()
            scores = scorer(states[listed], tokens)
            seconds.append(time.perf_counter() - started)
            scores = scores + models.similarity_weight * similar[listed]
            again.append(listed[np.argsort(-scores, kind="stable")])
        yield {
            "tokens": tokens or whole,
            "ndcg": round(ndcg(fits, np.array(again)), 4),
            "by_vectors": round(before, 4),
            "ms_a_pair": round(float(1000 * np.median(seconds) / LISTED), 3),
        }


def ndcg(fits, lists):
    """Return the mean nDCG@10 of lists of pictures that fit or do not."""
    fits = np.array(fits)
    right = np.take_along_axis(fits, lists[:, : rerank.FIRST], 1)
    return float(rerank.ndcg(right, fits.sum(1)).mean())


if __name__ == "__main__":
    main()
