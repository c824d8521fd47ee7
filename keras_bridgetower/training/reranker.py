"""Trains a matching head on one's own pictures, and says whether it helps."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.datasets.own_data import READERS
from keras_bridgetower.files import Below
from keras_bridgetower.files import FolderExists
from keras_bridgetower.metrics.calibration import fit_temperature
from keras_bridgetower.metrics.retrieval import list_ndcg
from keras_bridgetower.metrics.retrieval import paired_interval
from keras_bridgetower.models import head_table
from keras_bridgetower.objectives.list_losses import ListDistillationLoss
from keras_bridgetower.presets import registry
from keras_bridgetower.tasks.ranking import NOT_SCORED
from keras_bridgetower.tasks.ranking import ranking_parts
from keras_bridgetower.tasks.retrieval import BridgeTowerListRanking
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval

MATCHING = "similarity_and_fused"
# Places of a list that count.
_PLACES = 10
# Pictures of a query that are reranked, and that are scored to mine negatives.
LISTED, _MINED = 100, 32
# Names of the splits, and the percent where validation and test begin.
_SPLITS, _BEGIN = ("train", "validation", "test"), (70, 85)


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

    def with_gallery(self, paths):
        """Return the pairs with more pictures, which fit no query.

        Args:
            paths: iterable of str, paths. Pictures of the pairs may be among
                them.
        """
        found = {os.path.realpath(path): path for path in paths}
        known = {os.path.realpath(path) for path in self.pictures}
        new = [path for real, path in found.items() if real not in known]
        rows = [(0, len(new)), (0, 0)]
        grades, teacher = np.pad(self.grades, rows), self.teacher
        if teacher is not None:
            teacher = np.pad(teacher, rows, constant_values=np.nan)
        return Pairs([*self.pictures, *new], self.texts, grades, teacher)

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
        numbers, parts = np.digitize(percent, _BEGIN), {}
        for number, name in enumerate(_SPLITS):
            pictures = np.flatnonzero(numbers == number)
            asked = self.grades[pictures].max(0, initial=0) > 0
            parts[name] = pictures, np.flatnonzero(asked)
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
    check_choice("suffix of pairs", suffix, (*READERS, ".parquet"))
    if suffix in READERS:
        return list(READERS[suffix](path))
    return load_extra("pyarrow.parquet", "data").read_table(path).to_pylist()


def read_pairs(path, folder, teacher=None):
    """Read queries and their pictures.

    Args:
        path: path of a `.csv`, `.jsonl` or `.parquet` file with the columns
            `image` and `text` and, if wanted, `grade`, a number from 0, 1 by
            default. Of several grades of a pair the highest counts.
        folder: path, to which `image` is relative.
        teacher: path of a file with the columns `query`, `picture` and
            `score`, of another model; or None.

    Returns:
        `Pairs`.

    Raises:
        ValueError: another file, or a row without its columns, with a picture
            outside the folder, or with a grade or score that is no number.
    """
    below, pictures, texts = Below(folder), {}, {}

    def cells(path, image, text, value, least, **default):
        for row in read_rows(path):
            try:
                row = default | row
                name, words = str(row[image]), str(row[text])
                number = float(row[value])
                right = least <= number < math.inf and words.strip()
            except (KeyError, TypeError, ValueError):
                right = False
            if not right or below.leads_out(name):
                raise ValueError(
                    f"Each row of {path} must have {image!r}, a path below "
                    f"{str(folder)!r}, {text!r}, and {value!r}, a finite "
                    f"number from {least}. Received: {row!r:.200}"
                )
            picture = pictures.setdefault(below.key(name), len(pictures))
            yield picture, texts.setdefault(words, len(texts)), number

    graded = [*cells(path, "image", "text", "grade", 0, grade=1)]
    told = None
    if teacher is not None:
        told = [*cells(teacher, "picture", "query", "score", -math.inf)]

    def matrix(cells, missing):
        values = np.full((len(pictures), len(texts)), missing, "float32")
        for place in cells:
            values[place[:2]] = np.fmax(values[place[:2]], place[2])
        return values

    paths = [str(pathlib.Path(folder, name)) for name in pictures]
    scores = None if told is None else matrix(told, np.nan)
    return Pairs(paths, list(texts), matrix(graded, 0.0), scores)


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
    mine_every=0,
    seed=0,
    verbose=1,
):
    """Train a reranker on one's own pairs, and save it if it helps.

    The towers stay as they are, and their states are kept on disk once. The
    score starts from the similarity of the vectors and learns what the fusion
    adds. Negatives are the pictures that are nearest to a query. The epoch with
    the best nDCG@10 on validation is saved, or the start if no epoch is better
    than the vectors; test queries are scored once.

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
        mine_every: int, epochs after which negatives are mined anew: those
            that the trained score ranks highest. 0 for never.
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
    images = scorer.keep_states(folder / "image", pairs.pictures, **given)
    texts = scorer.keep_states(folder / "text", texts=pairs.texts, **given)
    near = _similarities(scorer, images, texts)
    lists, validation, test = (
        _Part(scorer, pairs, near, images, texts, *part)
        for part in parts.values()
    )
    task = _list_task(scorer, list_size, lists.labels)
    steps = epochs * -(-len(lists.lists) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    loss = ListDistillationLoss() if lists.labels == "scores" else "auto"
    task.compile(keras.optimizers.AdamW(rate, weight_decay=0.01), loss)
    by_vectors = validation.ndcg(validation.near).mean()
    start, history = task.get_weights(), []
    for epoch in range(epochs):
        if mine_every and epoch and epoch % mine_every == 0:
            lists.order = _nearest(lists.scores(_MINED))
        rng = np.random.default_rng((seed, epoch))
        task.fit(*lists.draw(rng, list_size), batch_size=batch_size, verbose=0)
        scorer.heads["itm"].set_weights(task.heads["itm"].get_weights())
        history.append(validation.ndcg(validation.scores()).mean())
        if verbose:
            print(
                f"epoch {epoch + 1}: nDCG@{_PLACES} on validation "
                f"{history[-1]:.3f}, by vectors {by_vectors:.3f}"
            )
        best = int(np.argmax(history))
        if best == epoch:
            weights = task.get_weights()
        if epoch - best == patience:
            break
    task.set_weights(weights if max(history) > by_vectors else start)
    scorer.heads["itm"].set_weights(task.heads["itm"].get_weights())
    scorer.divide_logits("itm", validation.temperature())
    before, after = test.ndcg(test.near), test.ndcg(test.scores())
    gain, low, high = paired_interval(after - before)
    report = {
        "preset": str(preset),
        "seed": seed,
        "epochs": len(history),
        "pictures": {k: len(pictures) for k, (pictures, _) in parts.items()},
        "queries": {k: len(asked) for k, (_, asked) in parts.items()},
        "metric": f"nDCG@{_PLACES} of test queries over the test pictures",
        "before": float(before.mean()),
        "after": float(after.mean()),
        **{"gain": gain, "low": low, "high": high, "helps": low > 0},
    }
    scorer.new_heads.restore({})
    # Others may train them.
    scorer.backbone.image_tower.trainable = True
    scorer.backbone.text_tower.trainable = True
    scorer.save_to_preset(str(output))
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (output / "README.md").write_text(card(report))
    return report


def summary(report):
    """Return a report in sentences."""
    number, helps = report["queries"]["test"], report["helps"]
    verdict = "It helps." if helps else "It does not help: keep the vectors."
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
        for name in _SPLITS
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
    task.backbone.image_tower.trainable = False
    task.backbone.text_tower.trainable = False
    return task


def _list_task(scorer, list_size, labels):
    """Return the task that trains the fusion and a head of `scorer`."""
    given = scorer.preprocessor
    preprocessor = BridgeTowerListRanking.preprocessor_cls(
        given.tokenizer, given.image_converter, list_size, labels
    )
    names = ("projection_dim", "ways", "matching")
    values = {name: getattr(scorer, name) for name in names}
    task = BridgeTowerListRanking(
        scorer.backbone, preprocessor, labels=labels, **values
    )
    for name in task.heads:
        task.heads[name].set_weights(scorer.heads[name].get_weights())
    return task


def _similarities(scorer, images, texts):
    """Return the products of the vectors of states, `(images, texts)`."""
    parts = ranking_parts(scorer)

    def vectors(source, part):
        given = dict(batch_size=32, answers=False, forward=part)
        batches = scorer.batches("train", [source], **given)
        return np.concatenate([made["embedding"] for _, made in batches])

    images, texts = scorer.sources(images, texts, "texts")
    return vectors(images, parts.image) @ vectors(texts, parts.text).T


def _nearest(scores):
    """Return the pictures of each query, the best first."""
    return np.argsort(-scores, axis=0, kind="stable").T


class _Part:
    """Queries and pictures of a split, and lists of training of them.

    A list has a query, pictures that fit, and near ones that do not. With a
    teacher its labels are its scores, of the pictures that it scored.

    Args:
        scorer: the `BridgeTowerRetrieval`.
        pairs: `Pairs`.
        near: float array `(pictures, texts)`, products of the vectors.
        images, texts: `KeptStates` of all.
        pictures, asked: int arrays, the pictures and the texts of the split.
    """

    def __init__(self, scorer, pairs, near, images, texts, pictures, asked):
        cells = np.ix_(pictures, asked)
        self.scorer = scorer
        self.images, self.texts = images[pictures], texts[asked]
        self.grades, self.near = pairs.grades[cells], near[cells]
        self.order = _nearest(self.near)
        self.labels, self.told = "grades", self.grades
        labeled = self.grades > 0
        if pairs.teacher is not None:
            self.labels, self.told = "scores", pairs.teacher[cells]
            labeled = np.isfinite(self.told)
            # One score alone says nothing of an order.
            labeled &= labeled.sum(0) > 1
        # A list for each relevant or scored picture: its query, and itself.
        self.lists = np.argwhere(labeled.T)

    def scores(self, listed=LISTED):
        """Return the scores of what is listed; others come behind it."""
        fewest = min(len(self.images), len(self.texts))
        listed = listed if listed < fewest else None
        return self.scorer.rank(
            self.images, self.texts, shortlist=listed, verbose=0
        )

    def ndcg(self, scores):
        """Return nDCG of each query."""
        return list_ndcg(scores.T, self.grades.T, _PLACES)

    def temperature(self):
        """Return what fits the scores of listed pairs to their labels."""
        scores = self.scores()
        listed = scores != NOT_SCORED
        logits = np.stack([np.zeros_like(scores), scores], axis=-1)
        matches = (self.grades > 0).astype("int32")
        return fit_temperature(logits[listed], matches[listed])

    def draw(self, rng, size):
        """Return `x` and `y` of an epoch of lists."""
        drawn = [self._draw(rng, size, *one) for one in self.lists]
        rows, labels = map(np.stack, zip(*drawn, strict=True))
        texts = self.texts[self.lists[:, 0]]
        return {"images": self.images[rows], "text": texts}, labels

    def _draw(self, rng, size, query, picture):
        """Return the pictures of a list and their labels, both padded."""
        told, padding = self.told[:, query], np.nan
        if self.labels == "scores":
            chosen = rng.permutation(np.flatnonzero(np.isfinite(told)))
        else:
            padding, order = -1.0, self.order[query]
            right = rng.permutation(np.flatnonzero(told > 0))
            right = [picture, *right[right != picture]][: size // 2]
            wrong = order[told[order] <= 0]
            missing = size - len(right)
            # Half of the wrong ones are among the nearest.
            near = rng.permutation(wrong[: max(_PLACES, 2 * missing)])
            near = near[: -(-missing // 2)]
            others = rng.permutation(np.setdiff1d(wrong, near))
            chosen = np.array([*right, *near, *others])
        chosen = chosen[:size]
        missing = (0, size - len(chosen))
        labels = np.pad(told[chosen], missing, constant_values=padding)
        return np.pad(chosen, missing, mode="edge"), labels
