"""Title: Is a statement about two pictures true?
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Judges statements about pairs of pictures, with accuracy and
    consistency as NLVR2 counts them, beside what is right with one picture
    unseen.
Accelerator: none; half a minute on one CPU core

    python examples/compare.py

Runs offline; needs `pip install easy-vqa matplotlib`.
"""

import example
from keras_bridgetower_drawings.training.easy.pairs import BLIND_PAIRS
from keras_bridgetower_drawings.training.easy.pairs import pairs
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

import keras_bridgetower as kbt
from keras_bridgetower.metrics.classification import evaluate_nlvr2


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--rows", type=int, default=600)
    arguments = parser.parse_args()
    model = kbt.BridgeTowerNLVR2.from_preset("bridgetower_tiny_easy_nlvr2")
    scenes = load_scenes("test")
    rows = pairs(scenes)
    count = arguments.rows
    left, right = scenes.data.images[rows.image_index[:count].T]
    judged = model.compare(left, right, rows.sentences[:count], batch_size=64)
    report = evaluate_nlvr2(
        rows.identifiers[:count],
        rows.labels[:count],
        [true for true, _ in judged],
    )
    print(report)
    blind = max(BLIND_PAIRS.values())
    print(
        f"all: {report.accuracy:.1f} % right (one picture unseen: "
        f"{blind:.1f} %)"
    )

    # Each sentence has four pairs: show another one of each.
    cells = []
    for i in range(0, min(count, 45), 5):
        true, share = judged[i]
        truth = bool(rows.labels[i])
        text = f"{rows.sentences[i]}\n{true} {share:.2f}, is: {truth}"
        cells.append(([left[i], right[i]], text, true == truth))
    sheet = example.contact_sheet(cells, 3, "Statements about two pictures")
    caption = "pairs, statements and answers"
    example.save(sheet, arguments.output, "compared.png", caption)


if __name__ == "__main__":
    example.timed(main)
