"""Title: Does a picture contradict a hypothesis, or entail it?
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Judges hypotheses about pictures, some of them veiled, as
    contradiction, neutral or entailment. Prints how often it is right, beside
    what is right without the truth in the picture.
Accelerator: none; half a minute on one CPU core

    python examples/entail.py

Runs offline; needs `pip install easy-vqa matplotlib`.
`keras-bridgetower entail` judges one hypothesis.
"""

import example
import numpy as np
from keras_bridgetower_drawings.training.easy.entailment import BLIND_ENTAILMENT
from keras_bridgetower_drawings.training.easy.entailment import entailment
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

import keras_bridgetower as kbt

LABELS = ("contradiction", "neutral", "entailment")


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--rows", type=int, default=600)
    arguments = parser.parse_args()

    model = kbt.BridgeTowerEntailment.from_preset(
        "bridgetower_tiny_easy_entailment"
    )
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

    # Each hypothesis has three pictures, one for each label.
    cells = [
        (
            [images[i]],
            f"{hypotheses[i]}\n{label} {shares[label]:.2f}\nis: {truth[i]}",
            label == truth[i],
        )
        for i, (label, shares) in enumerate(judged[:12])
    ]
    sheet = example.contact_sheet(
        cells, 3, "Hypotheses, judgements, and the truth"
    )
    caption = "hypotheses and judgements, three pictures each"
    example.save(sheet, arguments.output, "entailed.png", caption)


if __name__ == "__main__":
    example.timed(main)
