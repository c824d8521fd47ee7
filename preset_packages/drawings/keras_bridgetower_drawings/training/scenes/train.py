"""Train a fusion of drawings that knows the facts of scenes.

    python -m keras_bridgetower_drawings.training.scenes.train FOLDER

Stages: `seeing` (the image tower), `reading` (the text tower), `fusing`. A
stage that was interrupted resumes; one whose weights are there is left out.
"""

import pathlib

import keras

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

STEPS = 50  # Of an epoch, after which a run can be resumed.


class Run:
    """The world, the task, and the folder in which the stages write."""

    def __init__(self, folder, seed=0):
        self.folder, self.seed = pathlib.Path(folder), seed
        keras.utils.set_random_seed(seed)
        known = kbt.BridgeTowerContrastive.from_preset(start.PRESET)
        self.things = Things(folder, known)
        self.vectors = seeing.vectors(known, self.things.wide())
        self.task = start.new_task()
        self.sees = seeing.Seeing(self.task, *self.vectors[2:])
        self.reads = reading.Reading(self.task, self.vectors[2])
        self.tokenizer = self.task.preprocessor.tokenizer
        self.converter = self.task.preprocessor.image_converter

    def stage(self, name, learner, data, epochs, learning_rate, callbacks=()):
        """Train a stage, or read its weights if it is done."""
        weights = self.folder / f"{name}.weights.h5"
        if not weights.exists():
            given = epochs, learning_rate, self.folder / f"{name}_run"
            model.train(learner, data, *given, callbacks, run_eagerly=True)
            learner.save_weights(weights)
        learner.load_weights(weights)


def seeing_stage(run, epochs, learning_rate=1e-3):
    data = seeing.batches(
        run.things.wide(),
        run.vectors,
        run.converter,
        start.SIDE,
        STEPS,
        run.seed,
    )
    run.stage("seeing", run.sees, data, epochs, learning_rate)


def reading_stage(run, epochs, learning_rate=5e-4):
    data = reading.batches(
        run.things.wide(), run.vectors[0], run.tokenizer, STEPS, run.seed
    )
    run.stage("reading", run.reads, data, epochs, learning_rate)


def fusing_stage(run, epochs, learning_rate=1e-3):
    fusion = run.task.backbone.fusion
    start.enter(fusion, run.sees, run.reads)
    data = fusing.batches(
        run.things.of("training"),
        run.converter,
        run.tokenizer,
        start.SIDE,
        STEPS,
        run.seed,
    )
    world = World(run.things.of("validation"), "validation")
    found = score.pairs(world, 50)

    def look(epoch, logs=None):
        shares = score.of_pairs(run.task, world, found)["fusion"]
        print(f"validation {epoch}: {shares}", flush=True)
        run.task.save_to_preset(run.folder / "preset")

    looks = keras.callbacks.LambdaCallback(on_epoch_end=look)
    learner = fusing.Matching(run.task)
    run.stage("fusing", learner, data, epochs, learning_rate, [looks])


def main():
    parser = reports.parser(__doc__)
    for name, epochs in (("seeing", 16), ("reading", 6), ("fusing", 30)):
        parser.add_argument(f"--{name}", type=int, default=epochs)
    settings = parser.parse_args()
    run = Run(settings.folder)
    seeing_stage(run, settings.seeing)
    reading_stage(run, settings.reading)
    fusing_stage(run, settings.fusing)


if __name__ == "__main__":
    main()
