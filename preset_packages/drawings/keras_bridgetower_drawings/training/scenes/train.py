"""Train a fusion of drawings that knows the facts of scenes.

    python -m keras_bridgetower_drawings.training.scenes.train FOLDER

Stages: `seeing` (the image tower), `reading` (the text tower), `fusing` (the
fusion on frozen towers) and `whole` (all). A stage that was interrupted
resumes after its last epoch of 50 steps; one whose weights are there is left
out.
"""

import pathlib

import keras
import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import fusing
from keras_bridgetower_drawings.training.scenes import reading
from keras_bridgetower_drawings.training.scenes import score
from keras_bridgetower_drawings.training.scenes import seeing
from keras_bridgetower_drawings.training.scenes import start
from keras_bridgetower_drawings.training.scenes.scenes import World
from keras_bridgetower_drawings.training.scenes.things import Things

STEPS = 50  # Of an epoch.
# Epochs and learning rate of each stage.
STAGES = {
    "seeing": (90, 1.5e-3),
    "reading": (40, 1e-3),
    "fusing": (40, 1e-3),
    "whole": (40, 5e-4),
}


class Run:
    """The world, the task, and the folder in which the stages write."""

    def __init__(self, folder, seed=0):
        self.folder, self.seed = pathlib.Path(folder), seed
        keras.utils.set_random_seed(seed)
        known = kbt.BridgeTowerContrastive.from_preset(start.PRESET)
        self.things = Things(folder, known)
        self.known = known
        self.rows, self.names = seeing.vectors(known, self.things.wide())
        self.task = start.new_task()
        self.sees = seeing.Seeing(self.task, self.names)

    def stage(self, name, learner, data, epochs, callbacks=()):
        """Train a stage, or read its weights if it is done."""
        weights = self.folder / f"{name}.weights.h5"
        if not weights.exists():
            rate = STAGES[name][1]
            folder = self.folder / f"{name}_run"
            given = data, epochs or STAGES[name][0], rate, folder
            # The attention that is taught is captured eagerly.
            model.train(learner, *given, callbacks, run_eagerly=True)
            learner.save_weights(weights)
        learner.load_weights(weights)


def see(run, epochs):
    """Teach places what they show."""
    converter = run.task.preprocessor.image_converter
    given = run.rows, run.known, converter, start.SIDE, STEPS, run.seed
    data = seeing.batches(run.things.wide(), *given)
    run.stage("seeing", run.sees, data, epochs)


def read(run, epochs):
    """Train the nouns of captions to hold their facts."""
    words = run.things.words()
    rows, others = seeing.vectors(run.known, words)
    rows = run.rows | {n: len(run.rows) + row for n, row in rows.items()}
    given = rows, run.task.preprocessor.tokenizer, STEPS, run.seed, words
    data = reading.batches(run.things.wide(), *given)
    names = np.concatenate([run.names, others])
    asked = run.sees.shown_by(others)
    run.reads = reading.Reading(run.task, names, asked)
    run.stage("reading", run.reads, data, epochs)


def fuse(run, epochs, whole=False):
    """Teach the fusion which caption is true, then all parts together."""
    known = run.task.preprocessor
    given = known.image_converter, known.tokenizer, start.SIDE, STEPS
    data = fusing.batches(run.things.called(), *given, run.seed + int(whole))
    world = World(run.things.of("validation"), "validation")
    found = score.pairs(world, 50)

    def look(epoch, logs=None):
        shares = score.of_pairs(score.Scores(run.task), world, found)
        print(f"validation after {epoch + 1}: {shares}", flush=True)
        run.task.save_to_preset(run.folder / "preset")

    if not whole:
        start.enter(run.task, run.sees, run.reads)
    looks = keras.callbacks.LambdaCallback(on_epoch_end=look)
    name = "whole" if whole else "fusing"
    run.stage(name, fusing.Matching(run.task, whole), data, epochs, [looks])


def main():
    settings = reports.parser(__doc__, STAGES).parse_args()
    run = Run(settings.folder)
    see(run, settings.seeing)
    read(run, settings.reading)
    fuse(run, settings.fusing)
    fuse(run, settings.whole, whole=True)


if __name__ == "__main__":
    main()
