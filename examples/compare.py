"""Is a statement about two pictures true?

    python examples/compare.py
    python examples/compare.py --left a.png --right b.png \\
        --statement "both shapes are red."

Judges statements about pairs of easy-VQA's test pictures, prints accuracy and
consistency as NLVR2 counts them, beside what is right with one picture unseen,
and saves a sheet of pairs. Runs offline.
"""

import argparse
import pathlib
import time

import keras
from contact_sheet import contact_sheet
from easy_world.pairs import BLIND_PAIRS
from easy_world.pairs import pairs
from easy_world.scenes import load_scenes

import keras_bridgetower as kbt
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--left", type=pathlib.Path)
    parser.add_argument("--right", type=pathlib.Path)
    parser.add_argument("--statement", default="both shapes are red.")
    parser.add_argument("--preset", default="bridgetower_tiny_easy_nlvr2")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("compared.png")
    )
    arguments = parser.parse_args()
    if (arguments.left is None) != (arguments.right is None):
        parser.error("--left and --right belong together")
    started = time.time()

    model = kbt.BridgeTowerNLVR2.from_preset(arguments.preset)
    if arguments.left:
        true, share = model.compare(
            arguments.left, arguments.right, arguments.statement
        )
        print(f"{arguments.statement}  ->  {true} {share:.3f}")
        return

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

    # Four pairs stand with each sentence: another pair of each.
    cells = []
    for i in range(0, min(count, 48), 5):
        true, share = judged[i]
        answer = f"{true} {share:.2f}, is: {bool(rows.labels[i])}"
        cells.append(([left[i], right[i]], [rows.sentences[i], answer]))
    contact_sheet(cells, columns=2).save(arguments.output)
    print(f"{arguments.output}: pairs, statements and answers")
    seconds = time.time() - started
    print(f"{seconds:.1f} seconds on {keras.config.backend()}")


if __name__ == "__main__":
    main()
