"""Calibrate the scores of an emoji preset by a temperature.

    python -m keras_bridgetower_drawings.training.emoji.calibrate runs/emoji

The temperature is fitted on the artist that is held out of training. Prints the
calibration error before and after, and writes the folder `calibrated`.
"""

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower import metrics
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji.model import Together
from keras_bridgetower_drawings.training.emoji.run import WHOLE
from keras_bridgetower_drawings.training.emoji.run import Run

ARTIST = "twemoji"


def main():
    parser = reports.parser(__doc__)
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
    """Divide the logits by the fitted temperature, and return it.

    `best` has the highest logit of each question, `right` is True where that
    answer is right.
    """
    temperature = metrics.fit_temperature(
        best[:, None], right[:, None].astype(float)
    )
    vqa.divide_logits("vqa", temperature)
    return temperature


if __name__ == "__main__":
    main()
