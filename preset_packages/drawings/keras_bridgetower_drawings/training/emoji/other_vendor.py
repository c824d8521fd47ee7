"""Ask a preset sixty questions about drawings of another vendor.

    python -m keras_bridgetower_drawings.training.emoji.other_vendor runs/emoji

`other_vendor.json` has two questions for each of thirty emoji, answered by hand
from OpenMoji's drawings, which are in no training set.
"""

import json
import pathlib

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.run import Run

QUESTIONS = pathlib.Path(__file__).with_suffix(".json")
SURE = 0.9


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--preset", default="bridgetower_tiny_emoji_vqa")
    settings = parser.parse_args()
    run = Run(settings.folder, 0)
    by_name = {emoji.name: emoji for emoji in run.world}
    names, asked, right = zip(*questions(), strict=True)
    pictures = [
        world.on_white(world.drawing(by_name[name], world.OTHER_VENDOR))
        for name in names
    ]
    task = kbt.BridgeTowerVQA.from_preset(settings.preset)
    given = task.answer(pictures, list(asked), top_k=1)
    given = [best[0] for best in given]
    blind = score.blind_guesses(run)
    for row in zip(names, asked, right, given, strict=True):
        name, question, answer, (said, sure) = row
        sign = "" if said == answer else f", not {answer}"
        print(f"{name}: {question} {said} {sure:.2f}{sign}")
    print(summary(right, given, [blind[question] for question in asked]))


def questions():
    """Return `(name of the emoji, question, answer)` for each question."""
    table = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    return [
        (name, question, answer)
        for name, answers in table.items()
        for question, answer in answers.items()
    ]


def summary(right, given, blind):
    """Count right answers, and confident wrong ones."""
    hits = np.array([said for said, _ in given]) == right
    sure = np.array([odds for _, odds in given]) > SURE
    closed = np.isin(right, ("yes", "no"))
    return {
        "questions": len(hits),
        "right": int(hits.sum()),
        "right, blind": int((np.array(blind) == right).sum()),
        "right, yes or no": f"{hits[closed].sum()} of {closed.sum()}",
        "right, other": f"{hits[~closed].sum()} of {(~closed).sum()}",
        f"wrong above {SURE}": f"{(sure & ~hits).sum()} of {sure.sum()}",
    }


if __name__ == "__main__":
    main()
