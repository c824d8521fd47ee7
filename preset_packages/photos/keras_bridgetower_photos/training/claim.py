r"""Compare METER, BridgeTower and ManagerTower on the photo world.

    export KERAS_BACKEND=jax
    python -m keras_bridgetower_photos.training.claim runs/photos

The folder is that of `train` after the stage `start`. All
variants share its frozen towers and contrastive head, and learn from the same
batches with the same number of weights. A stopped command resumes. `--seeds`
without a number only prints the tables. After another `start`, remove the
folder `claim_600` first.
"""

import json
import pathlib

import keras
import numpy as np
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji.model import train

import keras_bridgetower as kbt
from keras_bridgetower.files import write_atomically
from keras_bridgetower.files import write_folder
from keras_bridgetower_photos.training import claim_tables
from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import score
from keras_bridgetower_photos.training.fusing import Fusion
from keras_bridgetower_photos.training.pools import Pool
from keras_bridgetower_photos.training.train import RATE
from keras_bridgetower_photos.training.train import Epochs
from keras_bridgetower_photos.training.train import Run
from keras_bridgetower_photos.training.train import enter_space
from keras_bridgetower_photos.training.train import with_weights

STEPS = 100  # Of an epoch, after which a stopped run goes on.
POOLS = 4  # The first pools, whatever else is drawn later.


def variants():
    """Return by name what a variant changes in `model.FUSION`."""
    fusion = model.FUSION
    top = (-1, *[None] * (fusion["num_layers"] - 1))
    taps, image_taps = (
        tuple(tap for tap in fusion[name] if tap is not None)
        for name in ("taps", "image_taps")
    )
    return {
        # The highest state of the image tower is the class probabilities.
        "METER": {"bridge": None, "taps": top, "image_taps": top},
        "BridgeTower": {},
        # Each layer reads the states that BridgeTower has, all of them.
        "ManagerTower": {
            "bridge": "adaptive_manager",
            "taps": taps,
            "image_taps": image_taps,
        },
    }


def equal_variants(start):
    """Return the changes of variants, and the weights of their fusions.

    The width of the feed-forward blocks gives all the size of BridgeTower.
    `start` is the backbone whose encoders are used.
    """
    encoders = start.image_encoder, start.text_encoder

    def count(changes):
        values = model.FUSION | changes
        made = kbt.BridgeTowerBackbone(*encoders, **values)
        return made.fusion.count_params()

    changed, width = variants(), model.FUSION["intermediate_dim"]
    counts = {name: count(changes) for name, changes in changed.items()}
    # The weights of one more unit in all feed-forward blocks.
    unit = 2 * model.FUSION["hidden_dim"] + 1
    unit *= 2 * model.FUSION["num_layers"]
    for name, changes in changed.items():
        missing = counts["BridgeTower"] - counts[name]
        changes["intermediate_dim"] = width + round(missing / unit)
        counts[name] = count(changes)
    return changed, counts


class ClaimRun(Run):
    """A run that always learns from the same pools."""

    def pools(self):
        found = super().pools()[:POOLS]
        if len(found) < POOLS:
            raise ValueError(
                f"{self.folder} must have {POOLS} pools. Received: "
                f"{len(found)}. Draw more by `python -m "
                f"keras_bridgetower_photos.training.draw {self.folder} "
                f"--pools {POOLS}`"
            )
        return found


class States(Epochs):
    """Batches of epochs of `STEPS`, with the states that a variant reads."""

    def __len__(self):
        return STEPS

    def __getitem__(self, number):
        x, y = super().__getitem__(number)
        for of in ("state", "listed"):
            names = sorted(name for name in x if name.startswith(f"{of}_"))
            kept = read_by(self.pairs.backbone, [x.pop(name) for name in names])
            x |= {f"{of}_{i}": states for i, states in enumerate(kept)}
        return x, y


def read_by(backbone, states):
    """Return those of the highest states that a backbone reads."""
    return states[-len(backbone.image_tower.outputs) :]


def tasks_of(run, changes, dtype="float32"):
    """Return new tasks of a variant, with towers and head of `start`."""
    start = kbt.BridgeTowerPretraining.from_preset(
        run.folder / "start", dtype=dtype
    )
    vqa, pairs = model.new_tasks(
        start.backbone.image_encoder,
        start.backbone.text_encoder,
        start.preprocessor.tokenizer,
        run.answers,
        names=None,
        dtype=dtype,
        **changes,
    )
    pairs.heads["itc"].set_weights(start.heads["itc"].get_weights())
    return vqa, pairs


def learn(run, changes, steps, folder):
    """Train a variant, or resume it, and save `preset` in the folder."""
    keras.utils.set_random_seed(run.seed)
    vqa, pairs = tasks_of(run, changes, run.dtype)
    enter_space(run, pairs)
    epochs = steps // STEPS
    # Each seed sees other scenes.
    data = States(run, pairs, first=epochs * run.seed)
    train(Fusion(vqa, pairs), data, epochs, RATE, folder)
    tasks = with_weights(tasks_of(run, changes), (vqa, pairs))
    write_folder(
        folder / "preset", lambda part: tasks.save_to_preset(pathlib.Path(part))
    )


class Exam:
    """The questions and texts of all variants, and the states of pictures.

    States of drawn scenes are kept in `folder`.
    """

    def __init__(self, run, split, folder):
        self.folder = run.folder
        start = score.Scored(run.folder, run.folder / "start")
        made, asked = start.drawn(split, score.SCENES)
        self.scene = np.repeat(np.arange(len(made)), [len(a) for a in asked])
        self.asked = [question for several in asked for question in several]
        path = folder / f"scenes_{split}.npz"
        if not path.exists():
            states = start.see([scene.picture for scene in made])
            states = [one.astype("float16") for one in states]
            write_atomically(path, lambda file: np.savez(file, *states))
        with np.load(path) as kept:
            self.scenes = list(kept.values())
        self.pictures = Pool(run.folder / "pools/gallery").states
        self.texts = {
            kind: getattr(gallery, kind)(start.world, split)
            for kind in score.KINDS
        }

    def take(self, preset):
        """Return the scores of a preset, each as a list.

        "VQA", "scene" and "sort" have a value for each question, others one
        for each text: of the list by matching, or by vectors.
        """
        scored = score.Scored(self.folder, preset)
        backbone = scored.contrastive.backbone
        scenes, pictures = (
            read_by(backbone, states) for states in (self.scenes, self.pictures)
        )
        texts = [question.text for question in self.asked]
        logits = scored.judge.judge(texts, scenes, self.scene)["answers"]
        right = scored.are_right(self.asked, logits)
        found = {
            "scene": self.scene.tolist(),
            "sort": [question.sort for question in self.asked],
            "VQA": right.astype(int).tolist(),
        }
        for kind, (texts, fits) in self.texts.items():
            order, scores = scored.searched(texts, pictures)
            before, after = score.list_scores(fits, order, scores)
            for name in ("R@1", "nDCG@10"):
                found[f"{name}, {kind}"] = after[name].tolist()
                found[f"{name}, {kind}, by vectors"] = before[name].tolist()
        return found


def compare(run, steps, seeds, split):
    """Train and score missing variants; return the folder of results."""
    folder = run.folder / f"claim_{steps}"
    missing = [
        (seed, name)
        for seed in seeds
        for name in variants()
        if not (folder / f"{name}_{seed}" / f"{split}.json").exists()
    ]
    if missing:
        folder.mkdir(exist_ok=True)
        start = kbt.BridgeTowerPretraining.from_preset(run.folder / "start")
        changed, weights = equal_variants(start.backbone)
        print(f"Weights of the fusions: {weights}", flush=True)
        exam = Exam(run, split, folder)
    for run.seed, name in missing:
        place = folder / f"{name}_{run.seed}"
        if not (place / "preset").exists():
            learn(run, changed[name], steps, place)
        found = exam.take(place / "preset") | {"weights": weights[name]}
        text = json.dumps(found).encode()
        write_atomically(
            place / f"{split}.json", lambda file, text=text: file.write(text)
        )
        print(claim_tables.write(folder, split), flush=True)
    return folder


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--split", default="test", choices=score.SPLITS[1:])
    parser.add_argument("--dtype", default="float32", help="in training")
    settings = parser.parse_args()
    if settings.steps < STEPS or settings.steps % STEPS:
        parser.error(f"--steps must be a multiple of {STEPS}")
    given = settings.steps, settings.seeds, settings.split
    run = ClaimRun(settings.folder, dtype=settings.dtype)
    folder = compare(run, *given)
    print(claim_tables.write(folder, settings.split))


if __name__ == "__main__":
    main()
