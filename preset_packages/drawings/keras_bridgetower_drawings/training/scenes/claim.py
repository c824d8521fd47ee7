"""Compare METER, BridgeTower and ManagerTower on scenes.

    python -m keras_bridgetower_drawings.training.scenes.claim FOLDER

All variants share the frozen towers and vectors of `train` after its stages
`seeing` and `reading`, which run first if the folder has no weights of them.
They learn from the same batches with the same number of weights. A stopped
command resumes. Scores and `table.csv` are written to `claim_STEPS` in the
folder. `--seeds` without a number prints what is done.
"""

import csv
import json

import keras
import numpy as np

from keras_bridgetower.metrics import retrieval
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.scenes import fusing
from keras_bridgetower_drawings.training.scenes import score
from keras_bridgetower_drawings.training.scenes import start
from keras_bridgetower_drawings.training.scenes import train
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World

STEPS, RATE = train.STEPS, 1e-3  # An epoch's steps.
BRIDGETOWER, TRAINING = "BridgeTower", "training, by nouns"
# What a variant changes in `start.FUSION`.
VARIANTS = {
    "METER": {"bridge": None, "taps": (-1, None, None)},
    # Each layer reads it, by a manager that has no choice.
    "highest state alone": {"bridge": "static_manager", "taps": (-1,)},
    BRIDGETOWER: {},
    "ManagerTower": {"bridge": "adaptive_manager", "taps": (-2, -1)},
}
# Which things and grounds, and which forms of captions.
EXAMS = {
    "validation": ("validation", "validation"),
    "validation_2": ("validation", "validation_2"),
    "test": ("test", "test"),
}


class Claim:
    """Trains and examines fusions of equal size on the frozen towers of a run.

    Args:
        run: the `Run` of `train`, after its stages `seeing` and `reading`.
    """

    variants = VARIANTS

    def __init__(self, run):
        self.run = run

    def new_task(self, changes):
        """Return a new task of a variant, with towers and vectors of the run.

        Args:
            changes: dict, what a variant changes in `start.FUSION`.
        """
        known, task = self.run.task, self.untrained(changes)
        for name in ("image_encoder", "text_encoder"):
            encoder = getattr(known.backbone, name)
            getattr(task.backbone, name).set_weights(encoder.get_weights())
        task.heads["itc"].set_weights(known.heads["itc"].get_weights())
        self.enter(task)
        return task

    def untrained(self, changes):
        """Return a new task of a variant."""
        return start.new_task(**changes)

    def enter(self, task):
        """Let what places and nouns say enter the fusion of a task."""
        start.enter(task, self.run.sees, self.run.reads)

    def learner(self, task):
        """Return the model that trains the fusion of a task."""
        return fusing.Matching(task)

    def batches(self, seed):
        """Return the batches of a seed."""
        known = self.run.task.preprocessor
        given = known.image_converter, known.tokenizer, start.SIDE, STEPS
        return fusing.batches(self.run.things.called(), *given, seed)

    def examine(self, tasks, exam):
        """Return by name the right pairs by sort, and nDCG@10 of each list.

        Args:
            tasks: dict from names to tasks.
            exam: one of `EXAMS`.
        """
        part, forms = EXAMS[exam]
        world = World(self.run.things.of(part), part)
        found = score.pairs(world, forms=forms), score.lists(world, forms=forms)
        return grades(Scores(tasks), world, *found)

    def equal_variants(self):
        """Return the changes of variants, and the weights of their fusions.

        The width of the feed-forward blocks gives all the size of BridgeTower.
        """
        changed = {name: dict(new) for name, new in self.variants.items()}
        counts = {
            name: self.new_task(new).backbone.fusion.count_params()
            for name, new in changed.items()
        }
        width = start.FUSION["hidden_dim"]
        # The weights of one more unit in all feed-forward blocks.
        unit = 2 * start.FUSION["num_layers"] * (2 * width + 1)
        for name, changes in changed.items():
            more = round((counts[BRIDGETOWER] - counts[name]) / unit)
            changes["intermediate_dim"] = 4 * width + more
            counts[name] += more * unit
        return changed, counts

    def learn(self, changes, steps, seed, folder):
        """Train the fusion of a variant, or resume it, and return its task."""
        keras.utils.set_random_seed(seed)
        task = self.new_task(changes)
        learner, weights = self.learner(task), folder / "fusing.weights.h5"
        if not weights.exists():
            given = self.batches(seed), steps // STEPS, RATE, folder
            model.train(learner, *given, run_eagerly=True)
            learner.save_weights(weights)
        learner.load_weights(weights)
        return task

    def compare(self, steps, seeds, exams):
        """Train and examine missing variants; return the folder of results."""
        folder = self.run.folder / f"claim_{steps}"
        folder.mkdir(exist_ok=True)
        changed, weights = self.equal_variants()
        (folder / "weights.json").write_text(json.dumps(weights))
        tasks = {}
        for seed in seeds:
            for name, changes in changed.items():
                print(f"{name}, seed {seed}", flush=True)
                place = folder / f"{name}_{seed}"
                tasks[place.name] = self.learn(changes, steps, seed, place)
        for exam in exams:
            path = folder / f"{exam}.json"
            found = json.loads(path.read_text()) if path.exists() else {}
            missing = {n: t for n, t in tasks.items() if n not in found}
            if missing:
                found |= self.examine(missing, exam)
                path.write_text(json.dumps(found))
        return folder


class Scores:
    """Scores pairs by several fusions: a dict from names to tasks."""

    def __init__(self, tasks):
        self.tasks, self.task = tasks, next(iter(tasks.values()))

    def __call__(self, drawn, texts):
        return {
            name: task.score(drawn, texts, batch_size=100)
            for name, task in self.tasks.items()
        }


def grades(scores, world, pairs, lists):
    """Return by name the right pairs by sort, and nDCG@10 of each list."""
    right = score.of_pairs(scores, world, pairs)
    ndcg = score.ndcg_of_lists(scores, world, lists)
    return {n: right[n] | {"lists": ndcg[n].tolist()} for n in right}


def table(folder):
    """Return the rows of all exams, with the deviation over the seeds.

    The last column has the nDCG@10 of BridgeTower's lists less that of the
    variant's: the mean over the seeds that both have, and its interval of 95 %
    by a bootstrap over lists. "training, by nouns" is how often the middle
    layer knows at the nouns which caption is right, in the new scenes of the
    last `STEPS` steps; "off by" is the error of x, y and size there,
    added, as a share of the side.
    """
    counts = json.loads((folder / "weights.json").read_text())
    exams = {TRAINING: {}}
    for done in sorted(folder.glob("*/fusing.weights.h5")):
        history = done.with_name("history.jsonl").read_text().splitlines()
        last = json.loads(history[-1])
        last |= {s: 100 * last[f"{s} by nouns"] for s in SORTS}
        exams[TRAINING][done.parent.name] = last
    for path in (folder / f"{exam}.json" for exam in EXAMS):
        if path.exists():
            exams[path.stem] = json.loads(path.read_text())
    columns = *SORTS, "off by", "nDCG@10", "BridgeTower has more"
    rows = [("exam", "fusion", "weights", "seeds", *columns)]
    for exam, found in exams.items():
        for name in VARIANTS:
            runs = {k: one for k, one in found.items() if k.startswith(name)}
            if not runs:
                continue
            cells = [
                reports.mean_and_spread([one[s] for one in runs.values()], 1)
                for s in SORTS
            ]
            if exam == TRAINING:
                off = [one["near"] for one in runs.values()]
                cells += reports.mean_and_spread(off, 2), "", ""
            else:
                own, other = (
                    [found[k.replace(name, n)]["lists"] for k in runs]
                    for n in (name, BRIDGETOWER)
                )
                gains = np.mean(other, 0) - np.mean(own, 0)
                gain = retrieval.paired_interval(gains)
                more = "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain)
                cells += "", reports.mean_and_spread(np.mean(own, 1), 3)
                cells.append("" if name == BRIDGETOWER else more)
            rows.append((exam, name, counts[name], len(runs), *cells))
    return rows


def main(doc=__doc__, train=train, claim=Claim):
    parser = reports.parser(doc)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--exams", nargs="*", default=list(EXAMS))
    settings = parser.parse_args()
    run = train.Run(settings.folder)
    train.see(run, None)
    train.read(run, None)
    given = settings.steps, settings.seeds, settings.exams
    folder = claim(run).compare(*given)
    rows = table(folder)
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    print(reports.markdown(rows))


if __name__ == "__main__":
    main()
