"""Does a picture contradict a hypothesis, leave it open, or entail it?

    python examples/entail.py
    python examples/entail.py --image photo.png --hypothesis "the shape is red."

Judges hypotheses about easy-VQA's test pictures, some of them veiled, prints
how often the model is right, beside what is right without the truth in the
picture, and saves a sheet of judgements. Runs offline.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
from contact_sheet import contact_sheet
from easy_world.entailment import BLIND_ENTAILMENT
from easy_world.entailment import entailment
from easy_world.scenes import load_scenes

import keras_bridgetower as kbt

LABELS = ("contradiction", "neutral", "entailment")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image", type=pathlib.Path)
    parser.add_argument("--hypothesis", default="the shape is red.")
    parser.add_argument("--preset", default="bridgetower_tiny_easy_entailment")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("entailed.png")
    )
    arguments = parser.parse_args()
    started = time.time()

    model = kbt.BridgeTowerEntailment.from_preset(arguments.preset)
    if arguments.image:
        label, shares = model.entail(arguments.image, arguments.hypothesis)
        print(f"{arguments.hypothesis}  ->  {label}, {shares}")
        return

    scenes = load_scenes("test")
    rows = entailment(scenes)
    images = rows.images(scenes)[: arguments.rows]
    hypotheses = rows.hypotheses[: arguments.rows]
    truth = np.array(LABELS)[rows.labels[: arguments.rows]]
    judged = model.entail(list(images), hypotheses, batch_size=64)
    found = np.array([label for label, _ in judged])
    for label in LABELS:
        score = 100 * (found == truth)[truth == label].mean()
        print(f"{label}: {score:.1f} % right")
    print(
        f"all: {100 * (found == truth).mean():.1f} % right (text and veil "
        f"alone: {BLIND_ENTAILMENT['text and view']:.1f} %), {len(found)} rows "
        "of the test split"
    )

    # Each hypothesis stands with three pictures, one for each label.
    cells = [
        (
            [images[i]],
            [hypotheses[i], f"{label} {shares[label]:.2f}", f"is: {truth[i]}"],
        )
        for i, (label, shares) in enumerate(judged[:12])
    ]
    contact_sheet(cells, columns=3).save(arguments.output)
    print(f"{arguments.output}: hypotheses and judgements, three pictures each")
    seconds = time.time() - started
    print(f"{seconds:.1f} seconds on {keras.config.backend()}")


if __name__ == "__main__":
    main()
