r"""Divide the logits of an emoji preset, so that its scores can be believed.

    PYTHONPATH=examples:tools python -m emoji_world.calibrate runs/emoji

The temperature fits the answers to the drawings of the artist that training
never saw. Prints the calibration error before and after, and writes the preset
into the folder `calibrated`.
"""

import argparse
import pathlib

import numpy as np

import keras_bridgetower as kbt
from emoji_world import score
from emoji_world.training.model import Together
from emoji_world.training.run import WHOLE
from emoji_world.training.run import Run
from keras_bridgetower import metrics

ARTIST = "twemoji"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--preset", help="another preset than the run's")
    settings = parser.parse_args()
    run = Run(settings.folder, 0)
    preset = settings.preset or run.folder / WHOLE
    vqa = kbt.BridgeTowerVQA.from_preset(preset)
    *_, given, right = score.answered(run, vqa, ARTIST)
    answers, shares = map(np.array, zip(*given, strict=True))
    print(calibrate(vqa, shares, answers == right))
    pairs = kbt.BridgeTowerPretraining.from_preset(preset)
    Together(vqa, pairs).save_to_preset(run.folder / "calibrated")


def calibrate(vqa, shares, right):
    """Divide the logits by the temperature that fits; return what changes."""
    shares = np.clip(shares, 1e-7, 1 - 1e-7)
    logits = np.log(shares / (1 - shares))
    temperature = divide(vqa, logits, right)
    after = 1 / (1 + np.exp(-logits / temperature))
    error = metrics.expected_calibration_error
    return {
        "temperature": round(temperature, 3),
        "calibration error before": round(error(shares, right), 3),
        "after": round(error(after, right), 3),
    }


def divide(vqa, best, right):
    """Divide the logits by the temperature that fits, and return it.

    Args:
        vqa: `BridgeTowerVQA`.
        best: float `(questions,)`, the logit of the best answer to each, which
            is the one whose score is shown.
        right: bool `(questions,)`, whether it is right.
    """
    temperature = metrics.fit_temperature(
        best[:, None], right[:, None].astype(float)
    )
    vqa.divide_logits("vqa", temperature)
    return temperature


if __name__ == "__main__":
    main()
