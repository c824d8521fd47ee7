"""Train a fusion on scenes of photographed things, stage by stage.

    export KERAS_BACKEND=torch
    python -m keras_bridgetower_photos.training.reranker.draw runs/reranker
    python -m keras_bridgetower_photos.training.reranker.train runs/reranker

`preset_packages/photos/TRAINING.md` says what each stage is for. A run that was
interrupted is resumed by the same command.
"""

import json
import pathlib

import keras
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji.model import train
from keras_bridgetower_drawings.training.scenes import reading
from keras_bridgetower_drawings.training.scenes.things import Thing

from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker import fusing
from keras_bridgetower_photos.training.reranker import names
from keras_bridgetower_photos.training.reranker import seeing
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker.world import World

STEPS = 50  # Of an epoch.
# Epochs and learning rate of each stage.
STAGES = {"seeing": (40, 3e-3), "reading": (60, 1.5e-3), "fusing": (10, 1e-3)}
SAMPLE = 128  # Pictures by which states are scaled.


class Run:
    """The task, and the folder in which the stages write."""

    def __init__(self, folder, seed=0):
        self.folder, self.seed = pathlib.Path(folder), seed
        keras.utils.set_random_seed(seed)
        folders = packages.fetch(self.folder / "packages")
        self.world = things.load(folders)
        self.names = names.read(folders, self.world)
        self.encoder = model.image_encoder(folders, start.SIDE)
        self.task = start.new_task(self.encoder, self.names)
        self.groups = fusing.Groups(
            self.folder / "pools", self.names.called, self.names.classes
        )
        first = [(0, row) for row in range(SAMPLE)]
        self.sample = self.groups.states(first)

    def stage(self, name, learner, data, epochs, **compiled):
        """Train a stage, or read its weights if it is done."""
        weights = self.folder / f"{name}.weights.h5"
        if not weights.exists():
            rate = STAGES[name][1]
            given = data, epochs or STAGES[name][0], rate
            train(learner, *given, self.folder / f"{name}_run", **compiled)
            learner.save_weights(weights)
        learner.load_weights(weights)
        return learner


def see(run, epochs):
    """Teach places where their thing is, how large, and of which color."""
    data = seeing.batches(run.groups, STEPS, run.seed)
    learner = seeing.Seeing(run.sample[0])
    run.sees = run.stage("seeing", learner, data, epochs)


def read(run, epochs):
    """Train the nouns of captions to hold their facts."""
    vectors = run.names.vectors

    def told(words):
        return [Thing(word, {"words": None}) for word in words]

    every = told(run.names.words)
    (run.folder / "words.json").write_text(json.dumps(len(every)))
    nouns = set(World(run.world, "training").every)
    shown = told([word for word in run.names.words if word in nouns])
    given = run.names.rows, run.task.preprocessor.tokenizer, STEPS, run.seed
    data = reading.batches(every, *given, shown)
    learner = reading.Reading(run.task, vectors, vectors)
    run.reads = run.stage("reading", learner, data, epochs)


def fuse(run, epochs):
    """Teach the fusion which caption is true."""
    start.enter(run.task, run.sees, run.reads, run.sample)
    start.know_drawings(run.task)
    tokenizer = run.task.preprocessor.tokenizer
    data = fusing.batches(run.groups, tokenizer, STEPS, run.seed)
    # The attention that is taught is captured eagerly.
    run.stage(
        "fusing", fusing.Matching(run.task), data, epochs, run_eagerly=True
    )
    run.task.save_to_preset(run.folder / "preset")


def main():
    settings = reports.parser(__doc__, STAGES).parse_args()
    run = Run(settings.folder)
    see(run, settings.seeing)
    read(run, settings.reading)
    fuse(run, settings.fusing)


if __name__ == "__main__":
    main()
