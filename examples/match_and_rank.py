"""Title: Match names with pictures, and find each among many
Author: the keras_bridgetower maintainers
Date: 2026-11-29
Description: Judges whether a drawing is what a text says, then ranks all
    drawings for each text. Prints the recalls beside those of guesses.
Accelerator: none; half a minute on one CPU core

    python examples/match_and_rank.py
    python examples/match_and_rank.py --pictures 200 --shortlist 16

Runs offline.
"""

import example
import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import retrieval_recall


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--shortlist", type=int)
    arguments = parser.parse_args()

    task = kbt.BridgeTowerRetrieval.from_preset(
        "bridgetower_tiny_emoji_retrieval"
    )
    drawings = example.drawings()
    kept = np.linspace(0, len(drawings) - 1, arguments.pictures).astype(int)
    names = np.array([*drawings])[kept].tolist()
    images = [example.pixels(drawings[name]) for name in names]
    texts = [f"a drawing of {name}" for name in names]
    own = task.score(images, texts)
    other = task.score(images, texts[1:] + texts[:1])
    for i in range(3):
        print(f"{names[i]}: {own[i]:.1f}; {texts[i + 1]}: {other[i]:.1f}")
    right = 100 * np.mean([*(own > 0), *(other < 0)])
    print(f"{right:.1f} % right (chance: 50.0 %), {2 * len(names)} pairs")

    scores = task.rank(
        images, texts, shortlist=arguments.shortlist, batch_size=128
    )
    report = retrieval_recall(scores, range(len(names)), split="the drawings")
    print(report)
    # A guess finds the one right picture, or text, among the first k.
    chance = sum(200 * min(1, k / len(names)) for k in (1, 5, 10))
    print(f"RSUM {report.rsum:.1f}; chance {chance:.1f}")

    cells = []
    for text in np.linspace(0, len(names) - 1, 3).astype(int):
        best = np.argsort(-scores[:, text], kind="stable")[:5]
        cells += [
            (
                [images[i]],
                f"{texts[text]}\nmatch {scores[i, text]:.1f}",
                i == text,
            )
            for i in best
        ]
    sheet = example.contact_sheet(cells, 5, "Best five; red: it does not fit")
    caption = "the best five pictures for three texts"
    example.save(sheet, arguments.output, "ranked.png", caption)


if __name__ == "__main__":
    example.timed(main)
