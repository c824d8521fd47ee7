r"""Train the photo presets, stage by stage; resume an interrupted run.

    export KERAS_BACKEND=jax
    python -m keras_bridgetower_photos.training.train runs/photos

Each stage reads what the one before wrote into the folder; `places` and
`questions` may be left out. The last epoch is used, none is chosen by a score.
The pools of scenes come from `draw`.
"""

import functools
import pathlib

import keras
import numpy as np
from keras import ops
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji.model import Together
from keras_bridgetower_drawings.training.emoji.model import run_stages
from keras_bridgetower_drawings.training.emoji.model import train

import keras_bridgetower as kbt
from keras_bridgetower_photos.training import aligning
from keras_bridgetower_photos.training import certainty
from keras_bridgetower_photos.training import classes
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import score
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.batches import OF_PLACES
from keras_bridgetower_photos.training.batches import Batches
from keras_bridgetower_photos.training.fusing import Fusion
from keras_bridgetower_photos.training.fusing import Questions
from keras_bridgetower_photos.training.lists import Lists
from keras_bridgetower_photos.training.pools import Pool
from keras_bridgetower_photos.training.pools import apart
from keras_bridgetower_photos.training.swapping import Swaps

STEPS = 125  # Of an epoch: half of a pool.
EPOCHS, RATE = 64, 1e-3
PLACES_EPOCHS, QUESTIONS_EPOCHS = 4, 32
FIRST_EPOCH = PLACES_EPOCHS + QUESTIONS_EPOCHS  # Of those with all objectives.


class Run:
    """The world and the folder in which the stages write.

    Epochs, seed and dtype are those of the fusion in training; `earlier` is a
    preset whose fusion is trained further.
    """

    def __init__(
        self, folder, seed=0, epochs=EPOCHS, dtype="float32", earlier=None
    ):
        self.folder, self.seed = pathlib.Path(folder), seed
        self.earlier = earlier
        self.epochs, self.dtype = epochs, dtype
        self.packages = packages.fetch(self.folder / "packages")
        self.world = things.load(self.packages)
        self.classes = classes.read(self.packages)
        self.answers = classes.answers(self.world, self.classes)

    @functools.cached_property
    def names(self):
        """`Names`, which take a minute to read."""
        return model.read_names(self.packages, self.classes, self.answers)

    def last(self, *stages):
        """Return the last of some stages that was run."""
        return [name for name in stages if (self.folder / name).exists()][-1]

    def pools(self):
        """Return the folders of the pools that are drawn."""
        found = (self.folder / "pools").glob("train_*[0-9]")
        return sorted(found, key=lambda path: int(path.name.split("_")[1]))


class Epochs(keras.utils.PyDataset):
    """Batches of one pool after the other; they depend on seed and number.

    `first` is the number of the first epoch, `asked` are values of `Batches`.
    """

    def __init__(self, run, pairs, first=0, **asked):
        super().__init__(workers=1, max_queue_size=4)
        self.run, self.pairs, self.asked = run, pairs, asked
        self.apart = apart(run.world)
        gallery = Pool(run.folder / "pools/gallery")
        seen = gallery.states[-1][:, 0, : len(run.classes)]
        shown, names = run.world.shown, run.names.classes
        self.swaps = Swaps(run.classes, names, shown, seen.astype("float32"))
        vectors = image_vectors(pairs, gallery)
        self.lists = Lists(
            shown, gallery.states, vectors, self.apart, self.swaps
        )
        self.outliers = Pool(run.folder / "pools/outliers")
        self.folder = self.batches = None
        self.first = first

    def begin(self, epoch):
        epoch += self.first
        pools = self.run.pools()
        folder = pools[epoch // 2 % len(pools)]
        if folder != self.folder:
            self.batches = self.folder = None
            self.folder, pool = folder, Pool(folder)
            self.batches = Batches(
                pool,
                image_vectors(self.pairs, pool),
                self.pairs.preprocessor.tokenizer,
                self.run.answers,
                self.apart,
                self.swaps,
                self.outliers,
                self.lists,
                **self.asked,
            )
        self.epoch = epoch
        self.rows = self.batches.order(np.random.default_rng((0, epoch)))

    def __len__(self):
        return STEPS

    def __getitem__(self, number):
        rng = np.random.default_rng((self.run.seed, self.epoch, number))
        # Few scenes may be asked about: they come again.
        return self.batches.make(self.rows[number % len(self.rows)], rng)


def image_vectors(pairs, pool):
    """Return the contrastive vectors of a pool's pictures."""
    first = np.asarray(pool.states[-1][:, 0], "float32")
    found = pairs.heads["itc"]({"image": ops.convert_to_tensor(first)})
    return ops.convert_to_numpy(found["image"])


def tasks_of(run, stage, dtype="float32"):
    """Open the tasks that a stage wrote, on one backbone."""
    folder = run.folder / stage
    pairs = kbt.BridgeTowerPretraining.from_preset(folder, dtype=dtype)
    return model.vqa_on(pairs.backbone, folder), pairs


def with_weights(tasks, trained):
    """Return tasks together, with the weights of others of another dtype."""
    for task, other in zip(tasks, trained, strict=True):
        task.set_weights(other.get_weights())
    return Together(*tasks)


def start_stage(run, folder):
    """Open the towers, and enter the names of classes."""
    needed = [
        n for one in run.world.shown for n in (one.noun, one.name, *one.names)
    ]
    text, tokenizer = model.text_encoder_and_tokenizer(run.packages, needed)
    vqa, pairs = model.new_tasks(
        model.image_encoder(run.packages),
        text,
        tokenizer,
        run.answers,
        run.names,
    )
    pool = Pool(run.folder / "pools/gallery")
    losses = aligning.learn(pairs, run.world, pool.states, run.seed)
    if run.earlier:
        earlier = kbt.BridgeTowerPretraining.from_preset(run.earlier)
        model.take_weights(pairs, earlier)
        taught = model.vqa_on(earlier.backbone, run.earlier)
        # There may be more answers now.
        if taught.preprocessor.answers == run.answers:
            vqa.heads["vqa"].set_weights(taught.heads["vqa"].get_weights())
    else:
        enter_space(run, pairs)
    return Together(vqa, pairs), {"loss": losses, "seconds": []}


def enter_space(run, pairs):
    """Initialize the fusion in the space of the contrastive head."""
    shown = run.world.shown
    taught = [one.split == "train" for one in shown]
    states = Pool(run.folder / "pools/gallery").states[-1]
    seen = states[taught, 1:].astype("float32")
    told = model.text_vectors(
        pairs.backbone.text_tower,
        pairs.preprocessor.tokenizer,
        sorted({one.noun for one in shown if one.split == "train"}),
    )
    model.enter_space(
        pairs.backbone.fusion,
        pairs.heads["itc"],
        told,
        seen.reshape(-1, seen.shape[-1]),
    )


def warm_up(epochs):
    """Return a rate that rises for some epochs, and stays."""
    return keras.optimizers.schedules.CosineDecay(
        0.0, 1, alpha=1.0, warmup_target=RATE, warmup_steps=epochs * STEPS
    )


def learn(run, folder, earlier, kind, epochs, rate, first=0, **asked):
    """Train the tasks of an earlier stage further; return them and a history.

    `kind` is `Fusion` or `Questions`, other arguments are those of `train` and
    `Epochs`.
    """
    vqa, pairs = tasks_of(run, earlier, run.dtype)
    data = Epochs(run, pairs, first, **asked)
    history = train(kind(vqa, pairs), data, epochs, rate, folder)
    return with_weights(tasks_of(run, "start"), (vqa, pairs)), history


def places_stage(run, folder):
    """Learn from questions about left and right alone, without exchanges.

    They take longest: a relation is at chance for hundreds of steps.
    """
    asked = {"shares": OF_PLACES, "needed": "side", "swapped": 0.0}
    given = Questions, PLACES_EPOCHS, warm_up(1)
    return learn(run, folder, "start", *given, **asked)


def questions_stage(run, folder):
    """Learn from questions alone, of all sorts, in half the time of a step."""
    given = Questions, QUESTIONS_EPOCHS, warm_up(2), PLACES_EPOCHS
    return learn(run, folder, run.last("start", "places"), *given)


def fusion_stage(run, folder):
    """Learn at one rate, as long as there is time: epochs are many."""
    given = Fusion, run.epochs, warm_up(2), FIRST_EPOCH
    return learn(run, folder, run.last("start", "places", "questions"), *given)


def settled_stage(run, folder):
    """Lower the rate to zero in fewer epochs, so that the weights settle."""
    given = Fusion, -(-2 * run.epochs // 3), RATE, FIRST_EPOCH + run.epochs
    return learn(run, folder, "fusion", *given)


def calibrated_stage(run, folder):
    """Fit scores to held-out scenes, and what counts as known."""
    vqa, pairs = tasks_of(run, "settled")
    scored = score.Scored(run.folder, run.folder / "settled")
    found = certainty.calibrate(vqa, scored)
    return Together(vqa, pairs), found | {"seconds": []}


STAGES = {
    "start": start_stage,
    "places": places_stage,
    "questions": questions_stage,
    "fusion": fusion_stage,
    "settled": settled_stage,
    "calibrated": calibrated_stage,
}


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--dtype", default="float32", help="of the fusion")
    parser.add_argument("--earlier", help="a preset whose fusion learns more")
    settings = vars(parser.parse_args())
    stages = settings.pop("stages")
    run_stages({name: STAGES[name] for name in stages}, Run(**settings))


if __name__ == "__main__":
    main()
