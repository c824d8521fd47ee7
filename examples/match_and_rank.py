"""Title: Match captions with pictures, and find each among many
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Scores true and false captions, then ranks a gallery in which
    every caption fits one picture. Prints the recalls beside those of a guess.
Accelerator: none; one minute on one CPU core

    python examples/match_and_rank.py
    python examples/match_and_rank.py --pictures 459 --shortlist 32

Runs offline; needs `pip install easy-vqa matplotlib`.
"""

import example
import keras
import numpy as np
from easy_world import captions as easy_vqa_captions
from easy_world.scenes import load_scenes

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import retrieval_recall


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--shortlist", type=int)
    arguments = parser.parse_args()

    task = kbt.BridgeTowerRetrieval.from_preset(
        "bridgetower_tiny_easy_retrieval"
    )
    scenes = load_scenes("test")
    match(task, scenes, arguments.pairs)

    pool, owner, captions = gallery(scenes, arguments.pictures)
    images = scenes.data.images[pool]
    scores = task.rank(
        images, captions, shortlist=arguments.shortlist, batch_size=128
    )
    report = retrieval_recall(
        scores, owner, split="easy-VQA test, captions derived"
    )
    print(report)
    blind = np.random.default_rng(0).random(scores.shape)
    guessed = retrieval_recall(blind, owner).rsum
    print(f"RSUM {report.rsum:.1f}; of one guess {guessed:.1f}")

    shown = np.linspace(0, len(captions) - 1, 3).astype(int).tolist()
    rows = []
    for caption in shown:
        found = scores[:, caption]
        hits = [
            (images[i], f"match {found[i]:.1f}", i == owner[caption])
            for i in np.argsort(-found, kind="stable")[:5]
        ]
        rows.append((captions[caption], hits))
    figure = example.rows_of_hits(rows, "Best five pictures; green: it fits")
    best = np.argsort(-scores[:, 0], kind="stable").tolist()
    example.save(
        figure,
        arguments.output,
        "ranked.png",
        f"the best five for three captions; the picture of '{captions[0]}' "
        f"has rank {best.index(owner[0]) + 1} of {len(images)}",
    )


def match(task, scenes, count, shown=4):
    """Score true captions, and false ones with one wrong attribute."""
    made = easy_vqa_captions.matches(scenes)
    images = scenes.data.images[made.image_index[:count]]
    texts, labels = made.texts[:count], made.labels[:count]
    logits = task.predict({"images": images, "text": texts}, verbose=0)
    probability = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[:, 1]
    for i in range(min(shown, count)):
        said = "true" if labels[i] else "false"
        print(f"{probability[i]:.3f} that '{texts[i]}' matches; it is {said}")
    right = 100 * np.mean((probability > 0.5) == labels)
    print(f"{right:.1f} % right (chance: 50.0 %), {count} captions")


def gallery(scenes, count):
    """Return rows of pictures of different kinds, and all their captions.

    Between them is, for each caption, the place of its picture.
    """
    whole = easy_vqa_captions.gallery(scenes)
    count = min(count, len(whole.pictures))
    kept = np.linspace(0, len(whole.pictures) - 1, count).astype(int)
    captions = np.flatnonzero(np.isin(whole.owner, kept))
    owner = np.searchsorted(kept, whole.owner[captions])
    texts = [whole.texts[i] for i in captions]
    return whole.pictures[kept], owner, texts


if __name__ == "__main__":
    example.timed(main)
