"""Score presets on plain sentences that a reader wrote about test pictures.

`plain_sentences.json` was written after the training texts, and nothing was
tuned on it: 35 sentences to judge, some of them about veiled pictures, and 15
with a blank and all words that fit it.

    python -m keras_bridgetower_drawings.training.easy.plain
    python -m keras_bridgetower_drawings.training.easy.plain --fill PRESET
"""

import argparse
import json
import pathlib

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training.easy.entailment import veil
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

SENTENCES = json.loads(
    pathlib.Path(__file__).with_name("plain_sentences.json").read_text()
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judge", default="bridgetower_tiny_easy_entailment")
    parser.add_argument("--fill", default="bridgetower_tiny_easy_mlm")
    presets = parser.parse_args()
    pictures = load_scenes("test").data.images

    rows = SENTENCES["judge"]
    texts, rng = [row["sentence"] for row in rows], np.random.default_rng(0)
    images = [veil(pictures[row["picture"]], row["view"], rng) for row in rows]
    task = kbt.BridgeTowerEntailment.from_preset(presets.judge)
    labels = [label for label, _ in task.entail(images, texts)]
    report("judged", rows, labels, [[row["label"]] for row in rows])

    rows = SENTENCES["fill"]
    texts = [row["sentence"] for row in rows]
    images = [pictures[row["picture"]] for row in rows]
    task = kbt.BridgeTowerMaskedLM.from_preset(presets.fill)
    filled = task.fill_mask(images, texts)
    words = [masks[0][0][0].strip() for masks, _ in filled]
    report("filled", rows, words, [row["words"] for row in rows])


def report(name, rows, answers, right):
    """Print each sentence with its answer, and the number of right ones."""
    count = 0
    for row, answer, expected in zip(rows, answers, right, strict=True):
        is_right = answer in expected
        count += is_right
        mark = "right" if is_right else "WRONG"
        print(f"{mark}  {row['picture']:3}  {row['sentence']}  ->  {answer}")
    print(f"{name}: {count} of {len(rows)} sentences right\n")


if __name__ == "__main__":
    main()
