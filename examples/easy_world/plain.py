r"""Scores presets on plain sentences that a reader wrote about test pictures.

The sentences (`plain_sentences.json`) were written after the ways of saying of
the training texts were fixed, and nothing was tuned on them: 35 to judge, some
of them about veiled pictures, and 15 with a blank and all words that are right.

    PYTHONPATH=examples python -m easy_world.plain
    PYTHONPATH=examples python -m easy_world.plain --fill runs/tiny/my_preset
"""

import argparse
import json
import pathlib

import numpy as np

import keras_bridgetower as kbt
from easy_world.entailment import veil
from easy_world.scenes import load_scenes

SENTENCES = pathlib.Path(__file__).with_name("plain_sentences.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judge", default="bridgetower_tiny_easy_entailment")
    parser.add_argument("--fill", default="bridgetower_tiny_easy_mlm")
    presets = parser.parse_args()
    scenes = load_scenes("test")
    answers = (
        judged(kbt.BridgeTowerEntailment.from_preset(presets.judge), scenes),
        filled(kbt.BridgeTowerMaskedLM.from_preset(presets.fill), scenes),
    )
    for name, rows in zip(("judged", "filled"), answers, strict=True):
        for row, answer, right in rows:
            mark = "right" if right else "WRONG"
            print(
                f"{mark}  {row['picture']:3}  {row['sentence']}  ->  {answer}"
            )
        right = sum(right for _, _, right in rows)
        print(f"{name}: {right} of {len(rows)} sentences right\n")


def sentences():
    """The sentences of the file.

    Returns:
        dict of `"judge"`: list of dicts of `"picture"`, an int, row of the
        test split, `"view"`, `"sentence"` and `"label"`, all str; and of
        `"fill"`: list of dicts of `"picture"`, `"sentence"` with `<mask>`,
        and `"words"`, list of str, each of which is right.
    """
    return json.loads(SENTENCES.read_text())


def judged(task, scenes):
    """Let a task judge the sentences.

    Args:
        task: `BridgeTowerEntailment`.
        scenes: `Scenes` of the test split.

    Returns:
        list of `(row, label, right)`: the sentence's dict, the label that the
        task gave, and whether it is the right one.
    """
    rows = sentences()["judge"]
    rng = np.random.default_rng(0)
    images = [
        veil(scenes.data.images[row["picture"]], row["view"], rng)
        for row in rows
    ]
    found = task.entail(images, [row["sentence"] for row in rows])
    return [
        (row, label, label == row["label"])
        for row, (label, _) in zip(rows, found, strict=True)
    ]


def filled(task, scenes):
    """Let a task fill the blanks.

    Args:
        task: `BridgeTowerMaskedLM`.
        scenes: `Scenes` of the test split.

    Returns:
        list of `(row, word, right)`: the sentence's dict, the word that the
        task put there, and whether it is one of the right ones.
    """
    rows = sentences()["fill"]
    images = [scenes.data.images[row["picture"]] for row in rows]
    found = task.fill_mask(images, [row["sentence"] for row in rows])
    words = [masks[0][0][0].strip() for masks, _ in found]
    return [
        (row, word, word in row["words"])
        for row, word in zip(rows, words, strict=True)
    ]


if __name__ == "__main__":
    main()
