"""Compare METER, BridgeTower and ManagerTower on scenes of photographs.

    python -m keras_bridgetower_photos.training.reranker.claim FOLDER

As `keras_bridgetower_drawings.training.scenes.claim`, on kept states of Lite0:
the last features, and above them the class probabilities, which the first two
fusions read alone. All begin new, and classes are not exchanged.
"""

import keras
import numpy as np
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import claim

from keras_bridgetower_photos.training.reranker import fusing
from keras_bridgetower_photos.training.reranker import score
from keras_bridgetower_photos.training.reranker import seeing
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker import train

BATCH = 100


class Claim(claim.Claim):
    """Trains and examines fusions on kept states of photographs."""

    variants = {
        "METER": claim.VARIANTS["METER"] | {"image_taps": (-1, None, None)},
        "highest state alone": claim.VARIANTS["highest state alone"]
        | {"image_taps": (-1,)},
        claim.BRIDGETOWER: {},
        "ManagerTower": claim.VARIANTS["ManagerTower"]
        | {"image_taps": (-3, -1)},
    }

    def __init__(self, run):
        super().__init__(run)
        keras.utils.set_random_seed(run.seed)
        # What the highest state says of places, for those that read no other.
        self.of_highest = seeing.Seeing(run.sample[-1])
        weights = run.folder / "seeing_highest.weights.h5"
        if not weights.exists():
            epochs, rate = train.STAGES["seeing"]
            data = seeing.batches(run.groups, claim.STEPS, run.seed, layer=-1)
            folder = run.folder / "seeing_highest_run"
            model.train(self.of_highest, data, epochs, rate, folder)
            self.of_highest.save_weights(weights)
        self.of_highest.load_weights(weights)

    def untrained(self, changes):
        return start.new_task(self.run.encoder, self.run.names, **changes)

    def enter(self, task):
        run, states = self.run, len(task.backbone.image_tower.outputs)
        sees = self.of_highest if states == 1 else run.sees
        start.enter(task, sees, run.reads, run.sample)

    def learner(self, task):
        return fusing.Matching(task)

    def batches(self, seed):
        tokenizer = self.run.task.preprocessor.tokenizer
        given = self.run.groups, tokenizer, claim.STEPS, seed
        return fusing.batches(*given, exchanged=0.0)

    def examine(self, tasks, exam):
        part, forms = claim.EXAMS[exam]
        given = self.run.world, start.SIDE, part, forms
        world, *found, pictures = score.drawn(*given)
        # Those of all: the run's task reads both states.
        states = self.run.task.keep_states(
            self.run.folder / f"states_{forms}", images=pictures
        )
        return claim.grades(Scores(tasks, states), world, *found)


class Scores(claim.Scores):
    """Scores pairs by several fusions, from kept states.

    Args:
        tasks: dict from names to tasks.
        states: `KeptStates` of all pictures.
    """

    def __init__(self, tasks, states):
        super().__init__(tasks)
        self.states = states

    def __call__(self, drawn, texts):
        found = {name: [] for name in self.tasks}
        for first in range(0, len(texts), BATCH):
            batch = slice(first, first + BATCH)
            tokenizer = self.task.preprocessor.tokenizer
            ids = np.asarray(tokenizer(texts[batch]), "int32")
            mask = (ids != tokenizer.pad_token_id).astype("int32")
            x = {"token_ids": ids, "padding_mask": mask}
            seen = self.states[drawn[batch]].read()
            for name, task in self.tasks.items():
                outputs = task.backbone.image_tower.outputs
                width = sum(one.shape[-1] for one in outputs)
                # The highest state is last.
                x["images"] = seen[..., -width:]
                logits = task.predict_features(x, batch_size=BATCH)
                found[name].append(logits[:, 1] - logits[:, 0])
        return {name: np.concatenate(of) for name, of in found.items()}


if __name__ == "__main__":
    claim.main(__doc__, train, Claim)
