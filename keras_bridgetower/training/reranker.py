"""Trains a matching head on one's own pictures, and says whether it helps."""

import dataclasses
import hashlib
import json
import pathlib

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets.tables import comma_rows
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.files import Below
from keras_bridgetower.files import FolderExists
from keras_bridgetower.metrics.calibration import fit_temperature
from keras_bridgetower.metrics.retrieval import list_ndcg
from keras_bridgetower.metrics.retrieval import paired_interval
from keras_bridgetower.models import head_table
from keras_bridgetower.objectives.list_losses import ListDistillationLoss
from keras_bridgetower.preprocessing.retrieval import (
    BridgeTowerContrastivePreprocessor,
)
from keras_bridgetower.preprocessing.retrieval import (
    BridgeTowerListRankingPreprocessor,
)
from keras_bridgetower.presets import registry
from keras_bridgetower.tasks.contrastive import BridgeTowerContrastive
from keras_bridgetower.tasks.list_ranking import BridgeTowerListRanking
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval

MATCHING = "similarity_and_fused"
# Places of a list that count.
_PLACES = 10
# Pictures of a query that are reranked, and from which negatives are drawn.
_LISTED = 100
# Percent of the pictures for training and, after these, for validation.
_SHARES = {"train": 70, "validation": 85, "test": 100}
_COLUMNS = ("image", "text")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Queries and their pictures.

    Args:
        pictures: list of str, paths.
        texts: list of str.
        grades: float32 array `(pictures, texts)`, 0 where a picture is not
            relevant.
        teacher: float32 array like `grades`, scores of another model, NaN
            where there is none; or None.
    """

    pictures: list
    texts: list
    grades: np.ndarray
    teacher: np.ndarray | None = None

    def split(self):
        """Divide the pictures by a hash of their names.

        A query is asked in each part that has pictures of it, and there of
        these alone.

        Returns:
            dict from `"train"`, `"validation"` and `"test"` to two int arrays,
            the pictures and the texts of the part.
        """
        names = [pathlib.Path(path).name for path in self.pictures]
        sums = [hashlib.sha256(name.encode()).digest() for name in names]
        percent = np.array([int.from_bytes(x[:4]) % 100 for x in sums])
        parts, low = {}, 0
        for name, high in _SHARES.items():
            pictures = np.flatnonzero((low <= percent) & (percent < high))
            asked = self.grades[pictures].max(0, initial=0) > 0
            parts[name] = pictures, np.flatnonzero(asked)
            low = high
        few = [name for name, (_, texts) in parts.items() if len(texts) < 2]
        if few:
            raise ValueError(
                "`pairs` must have enough pictures and texts to hold some out "
                f"for validation and test. Received: {len(self.pictures)} "
                f"pictures, fewer than two queries for {few}"
            )
        return parts


def read_rows(path):
    """Read the rows of a CSV, JSON lines or Parquet file as dicts."""
    suffix = pathlib.Path(path).suffix
    check_choice("suffix of pairs", suffix, (".csv", ".jsonl", ".parquet"))
    if suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    return list({".csv": comma_rows, ".jsonl": json_lines}[suffix](path))


def read_pairs(path, folder, teacher=None):
    """Read queries and their pictures.

    Args:
        path: path of a `.csv`, `.jsonl` or `.parquet` file with the columns
            `image` and `text` and, if wanted, `grade`, a number from 0, 1 by
            default.
        folder: path, to which `image` is relative.
        teacher: path of a file with the columns `query`, `picture` and
            `score`, of another model; or None.

    Returns:
        `Pairs`.

    Raises:
        ValueError: another file, a row without its columns, a picture outside
            the folder, or grades that are not numbers from 0.
    """
    below, pictures, texts, found = Below(folder), {}, {}, []

    def numbers(row, image, text):
        if not {image, text} <= set(row) or not str(row[text]).strip():
            raise ValueError(
                f"Each row of {path} must have the columns {image!r} and "
                f"{text!r}. Received: {row!r:.200}"
            )
        name = str(row[image])
        if below.leads_out(name):
            raise ValueError(
                f"`{image}` must be a path below {str(folder)!r}. Received: "
                f"{name!r}"
            )
        place = pictures.setdefault(below.key(name), len(pictures))
        return place, texts.setdefault(str(row[text]), len(texts))

    for row in read_rows(path):
        grade = row.get("grade", 1) if isinstance(row, dict) else None
        try:
            found.append((*numbers(row, *_COLUMNS), float(grade)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} must be pairs of pictures and texts: {error}"
            ) from error
    told = [] if teacher is None else read_rows(teacher)
    told = [(*numbers(r, "picture", "query"), float(r["score"])) for r in told]
    grades = np.zeros((len(pictures), len(texts)), "float32")
    for picture, text, grade in found:
        grades[picture, text] = max(grades[picture, text], grade)
    scores = None
    if teacher is not None:
        scores = np.full(grades.shape, np.nan, "float32")
        for picture, text, score in told:
            scores[picture, text] = score
    paths = [str(pathlib.Path(folder, name)) for name in pictures]
    return Pairs(paths, list(texts), grades, scores)


def train(
    pairs,
    preset,
    output,
    states=None,
    kind="float16",
    epochs=20,
    patience=4,
    list_size=8,
    batch_size=8,
    learning_rate=1e-3,
    seed=0,
    verbose=1,
):
    """Train a reranker on one's own pairs, and save it if it helps.

    The towers stay as they are, and their states are kept on disk once. The
    score starts from the similarity of the vectors and learns what the fusion
    adds. Negatives are the pictures that are nearest to a query. The epoch with
    the best nDCG@10 on validation is saved; test queries are scored once.

    Args:
        pairs: `Pairs`.
        preset: preset with contrastive heads, from whose fusion training
            starts.
        output: path of the new preset folder.
        states: path of the folder of states, which later calls read again;
            by default `output` with the suffix `.states`.
        kind: how states are stored, as in `keep_states`.
        epochs: int, most passes over the pairs of training.
        patience: int, epochs without a better validation before the end.
        list_size: int, pictures of a list in training, from 2.
        batch_size: int, lists of a step.
        learning_rate: float, that of the first step; it falls to 0.
        seed: int, of all draws.
        verbose: 0 for no output.

    Returns:
        dict of plain values, see `report.json` in the folder: nDCG@10 on test
        `"before"` by the vectors and `"after"`, their difference `"gain"` and
        its 95 % interval `"low"` and `"high"`, `"helps"`, whether the interval
        is above 0, and others.

    Raises:
        ValueError: too few pairs, a preset without vectors, or a folder that
            exists.
    """
    output = pathlib.Path(output)
    if output.exists():
        raise FolderExists(output, "output")
    parts = pairs.split()
    keras.utils.set_random_seed(seed)
    scorer = _opened(preset)
    folder = pathlib.Path(states or f"{output}.states")
    given = dict(kind=kind, verbose=verbose)
    images = scorer.keep_states(
        folder / "image", images=pairs.pictures, **given
    )
    texts = scorer.keep_states(folder / "text", texts=pairs.texts, **given)
    near = _similarities(scorer, images, texts)
    held = {
        name: _HeldOut(scorer, pairs.grades, near, images, texts, parts[name])
        for name in ("validation", "test")
    }
    lists = _Lists(pairs, near, images, texts, parts["train"], list_size)
    task = _list_task(scorer, list_size, lists.labels)
    steps = epochs * -(-len(lists.pairs) // batch_size)
    task.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps),
            weight_decay=0.01,
        ),
        ListDistillationLoss() if lists.labels == "scores" else "auto",
    )
    before = {name: part.ndcg(part.near) for name, part in held.items()}
    best, weights, since = before["validation"].mean(), None, 0
    for epoch in range(epochs):
        rng = np.random.default_rng((seed, epoch))
        task.fit(*lists.draw(rng), batch_size=batch_size, verbose=0)
        scorer.heads["itm"].set_weights(task.heads["itm"].get_weights())
        found = held["validation"].ndcg(held["validation"].scores()).mean()
        if verbose:
            print(
                f"epoch {epoch + 1}: nDCG@{_PLACES} on validation "
                f"{found:.3f}, by vectors {before['validation'].mean():.3f}"
            )
        since += 1
        if weights is None or found > best:
            best, weights, since = found, task.get_weights(), 0
        if since == patience:
            break
    task.set_weights(weights)
    scorer.heads["itm"].set_weights(task.heads["itm"].get_weights())
    scorer.divide_logits("itm", held["validation"].temperature())
    after = held["test"].ndcg(held["test"].scores())
    gain, low, high = paired_interval(after - before["test"])
    report = {
        "preset": str(preset),
        "seed": seed,
        "epochs": epoch + 1,
        "pictures": {k: len(pictures) for k, (pictures, _) in parts.items()},
        "queries": {k: len(asked) for k, (_, asked) in parts.items()},
        "metric": f"nDCG@{_PLACES} of test queries over the test pictures",
        "before": float(before["test"].mean()),
        "after": float(after.mean()),
        **{"gain": gain, "low": low, "high": high, "helps": low > 0},
    }
    scorer.new_heads.restore({})
    _set_trainable(scorer, True)  # Others may train them.
    scorer.save_to_preset(str(output))
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (output / "README.md").write_text(card(report))
    return report


def summary(report):
    """Return a report in sentences."""
    number = report["queries"]["test"]
    verdict = "It does not help: keep the vectors."
    if report["helps"]:
        verdict = "It helps."
    return (
        f"nDCG@{_PLACES} of {number} test queries: {report['before']:.3f} by "
        f"vectors, {report['after']:.3f} after reranking. Gain "
        f"{report['gain']:+.3f}, 95 % interval {report['low']:+.3f} to "
        f"{report['high']:+.3f}. {verdict}"
    )


def card(report):
    """Return the README of a trained preset."""
    sizes = ", ".join(
        f"{report['pictures'][name]} pictures and {report['queries'][name]} "
        f"queries for {name}"
        for name in _SHARES
    )
    return (
        "# A reranker of pictures\n\n"
        f"Trained by `keras-bridgetower train reranker` from "
        f"`{report['preset']}`, seed {report['seed']}. {summary(report)}\n\n"
        f"Pictures were divided by their names: {sizes}. Test queries were "
        "scored once. The interval is a bootstrap over queries; the queries "
        "of one data set say nothing of other pictures.\n"
    )


def _opened(preset):
    """Open the task of a preset, with towers and vectors that stay."""
    folder = registry.open_preset(preset)
    heads = head_table.saved_heads(folder)
    if "itc" not in heads:
        raise ValueError(
            "`preset` must have contrastive heads, whose vectors find the "
            f"pictures. Received: preset={preset!r}, with {sorted(heads)}"
        )
    task = BridgeTowerRetrieval.from_preset(
        folder, matching=MATCHING, random_heads=True, **heads["itc"]
    )
    _set_trainable(task, False)
    return task


def _set_trainable(task, value):
    for tower in (task.backbone.image_tower, task.backbone.text_tower):
        tower.trainable = value


def _list_task(scorer, list_size, labels):
    """Return the task that trains the fusion and a head of `scorer`."""
    given = scorer.preprocessor
    preprocessor = BridgeTowerListRankingPreprocessor(
        given.tokenizer, given.image_converter, list_size, labels
    )
    values = {n: getattr(scorer, n) for n in ("projection_dim", "ways")}
    task = BridgeTowerListRanking(
        *(scorer.backbone, preprocessor, list_size, labels),
        **values,
        matching=MATCHING,
    )
    for name in task.heads:
        task.heads[name].set_weights(scorer.heads[name].get_weights())
    return task


def _similarities(scorer, images, texts):
    """Return the products of the vectors of states, `(images, texts)`."""
    task = BridgeTowerContrastive(
        scorer.backbone,
        BridgeTowerContrastivePreprocessor(
            scorer.preprocessor.tokenizer, scorer.preprocessor.image_converter
        ),
        scorer.projection_dim,
        ways=scorer.ways,
    )
    task.heads["itc"].set_weights(scorer.heads["itc"].get_weights())
    task.new_heads.restore({})
    return task.embed(images=images) @ task.embed(texts=texts).T


class _HeldOut:
    """Queries and pictures of a split that is not trained on."""

    def __init__(self, scorer, grades, near, images, texts, part):
        pictures, asked = part
        self.scorer = scorer
        self.images, self.texts = images[pictures], texts[asked]
        self.grades = grades[np.ix_(pictures, asked)]
        self.near = near[np.ix_(pictures, asked)]

    def scores(self):
        """Return the scores of what is listed; others come behind it."""
        shortlist = min(_LISTED, len(self.images))
        whole = shortlist == len(self.images)
        return self.scorer.rank(
            *(self.images, self.texts),
            shortlist=None if whole else shortlist,
            verbose=0,
        )

    def ndcg(self, scores):
        """Return nDCG of each query."""
        return list_ndcg(scores.T, self.grades.T, _PLACES)

    def temperature(self):
        """Return what fits the scores of all pairs to their labels."""
        scores = self.scores().reshape(-1)
        logits = np.stack([np.zeros_like(scores), scores], axis=-1)
        return fit_temperature(
            logits, (self.grades > 0).astype("int32").ravel()
        )


class _Lists:
    """Lists of training: a query, pictures that fit, and near ones that do not.

    With a teacher the labels are its scores, of the pictures that it scored.
    """

    def __init__(self, pairs, near, images, texts, part, list_size):
        pictures, self.texts = part
        self.images, self.kept_texts = images[pictures], texts
        self.list_size = list_size
        self.labels = "grades" if pairs.teacher is None else "scores"
        self.grades = pairs.grades[np.ix_(pictures, self.texts)]
        near = near[np.ix_(pictures, self.texts)]
        if pairs.teacher is not None:
            self.told = pairs.teacher[np.ix_(pictures, self.texts)]
            scored = np.isfinite(self.told).sum(0) > 1
            self.texts, near = self.texts[scored], near[:, scored]
            self.told, self.grades = (
                self.told[:, scored],
                self.grades[:, scored],
            )
        # Pictures of each query, the nearest first.
        self.order = np.argsort(-near, axis=0, kind="stable").T
        # A list for each relevant or scored picture: its query, and itself.
        labeled = self.grades > 0
        if pairs.teacher is not None:
            labeled = np.isfinite(self.told)
        self.pairs = np.argwhere(labeled.T)

    def draw(self, rng):
        """Return `x` and `y` of an epoch."""
        drawn = [self._draw(rng, *pair) for pair in self.pairs]
        rows, labels = map(np.stack, zip(*drawn, strict=True))
        asked = self.texts[self.pairs[:, 0]]
        x = {"images": self.images[rows], "text": self.kept_texts[asked]}
        return x, labels

    def _draw(self, rng, query, picture):
        order = self.order[query]
        if self.labels == "scores":
            told = self.told[:, query]
            chosen = rng.permutation(np.flatnonzero(np.isfinite(told)))
            return self._filled(chosen, told, np.nan)
        grades = self.grades[:, query]
        right = rng.permutation(np.flatnonzero(grades > 0))
        right = [picture, *right[right != picture]][: self.list_size // 2]
        wrong = order[grades[order] <= 0]
        missing = self.list_size - len(right)
        # Half of the wrong ones are among the nearest.
        near = rng.permutation(wrong[: max(_PLACES, 2 * missing)])
        near = near[: -(-missing // 2)]
        others = rng.permutation(np.setdiff1d(wrong, near))
        chosen = [*right, *near, *others]
        return self._filled(np.array(chosen), grades, -1.0)

    def _filled(self, chosen, labels, padding):
        """Cut or pad a list to its size."""
        chosen = chosen[: self.list_size]
        found = np.full(self.list_size, padding, "float32")
        found[: len(chosen)] = labels[chosen]
        missing = self.list_size - len(chosen)
        return np.pad(chosen, (0, missing), mode="edge"), found
