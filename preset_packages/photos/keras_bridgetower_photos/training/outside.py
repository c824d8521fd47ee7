"""Ask a photo preset about photographs of other packages.

    python -m keras_bridgetower_photos.training.outside PRESET

asks 110 questions about 22 photographs of scikit-image, scikit-learn,
matplotlib and Gradio, and some in other languages, and counts right, wrong
and unknown answers. `outside.json` has the questions, each with all answers
that are right. They were written before a model answered them; nothing is
chosen by them.
"""

import argparse
import collections
import importlib.util
import json
import pathlib

import keras_bridgetower as kbt

ASKED = json.loads(
    pathlib.Path(__file__).with_suffix(".json").read_text("utf-8")
)


def path_of(name):
    """Return the path of a file of an installed package."""
    package, _, rest = name.partition("/")
    (root,) = importlib.util.find_spec(package).submodule_search_locations
    return str(pathlib.Path(root, rest))


def questions():
    """Return rows of the name of a picture, a question and right answers."""
    return [
        (name, text, answers.split("|"))
        for name, rows in ASKED["English"].items()
        for text, answers in rows
    ]


def outcome(answers, right):
    """Return "right", "wrong" or "unknown"."""
    if answers.known is False:
        return "unknown"
    return "right" if answers[0][0] in right else "wrong"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    vqa = kbt.BridgeTowerVQA.from_preset(parser.parse_args().preset)
    asked = questions()
    asked += [(name, text, []) for name, text in ASKED["other languages"]]
    found = vqa.answer(
        [path_of(name) for name, *_ in asked], [text for _, text, _ in asked]
    )
    counts = collections.defaultdict(collections.Counter)
    for (name, text, right), answers in zip(asked, found, strict=True):
        told = outcome(answers, right)
        counts["English" if right else "other languages"][told] += 1
        best, score = answers[0]
        print(f"{name}\t{text}\t{best}\t{score:.3f}\t{told}")
    for language, several in counts.items():
        print(language, dict(several))


if __name__ == "__main__":
    main()
