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
from emoji_world import colors
from emoji_world import questions
from emoji_world import score
from emoji_world import world
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
    print(calibrate(vqa, *asked(run, vqa)))
    pairs = kbt.BridgeTowerPretraining.from_preset(preset)
    Together(vqa, pairs).save_to_preset(run.folder / "calibrated")


def asked(run, vqa):
    """Return `(shares, right)` of the best answers: float and bool arrays."""
    rng = np.random.default_rng(score.SEED)
    rows = []
    for emoji in run.world:
        drawing = world.drawing(emoji, ARTIST)
        if drawing is not None:
            color = colors.main_color(drawing)
            _, text, answer = questions.question(emoji, color, rng)
            rows.append((world.on_white(drawing), text, answer))
    pictures, texts, right = map(list, zip(*rows, strict=True))
    given = vqa.answer(pictures, texts, top_k=1, batch_size=128)
    given, shares = zip(*(best[0] for best in given), strict=True)
    return np.array(shares), np.array(given) == right


def calibrate(vqa, shares, right):
    """Divide the logits by the temperature that fits; return what changes."""
    shares = np.clip(shares, 1e-7, 1 - 1e-7)
    logits = np.log(shares / (1 - shares))[:, None]
    temperature = metrics.fit_temperature(logits, right[:, None].astype(float))
    after = 1 / (1 + np.exp(-logits[:, 0] / temperature))
    vqa.divide_logits("vqa", temperature)
    error = metrics.expected_calibration_error
    return {
        "temperature": round(temperature, 3),
        "calibration error before": round(error(shares, right), 3),
        "after": round(error(after, right), 3),
    }


if __name__ == "__main__":
    main()
