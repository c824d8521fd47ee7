"""Recall of image-text retrieval, from a matrix of all scores."""

import dataclasses

import keras
import numpy as np

from keras_bridgetower import checks

PROTOCOL = "recall over the whole pool, ties against the model"
# Scores compared at a time, with about 100 MB of temporary memory.
_BLOCK = 8_000_000


@dataclasses.dataclass(frozen=True)
class RetrievalReport:
    """Recalls in percent; `print` shows them with protocol and split.

    Args:
        recalls: dict from name to float. `"IR@5"` is the share of texts whose
            image is among the five best images. `"TR@5"` is the share of
            images with one of their texts among the five best texts.
        images: int, number of images, in one fold if there are several.
        texts: int, number of texts, in one fold if there are several.
        split: str, name of the split.
        protocol: str, the counting of ranks.
    """

    recalls: dict
    images: int
    texts: int
    split: str
    protocol: str = PROTOCOL

    @property
    def ir_mean(self):
        """Mean of the image retrieval recalls, percent."""
        return self._mean("IR")

    @property
    def tr_mean(self):
        """Mean of the text retrieval recalls, percent."""
        return self._mean("TR")

    @property
    def r_mean(self):
        """Mean of `ir_mean` and `tr_mean`, percent; selects a checkpoint."""
        return (self.ir_mean + self.tr_mean) / 2

    @property
    def rsum(self):
        """Sum of the recalls: at most 600 with three ranks."""
        return float(sum(self.recalls.values()))

    def _mean(self, direction):
        recalls = self.recalls.items()
        of_direction = [r for name, r in recalls if name[:2] == direction]
        return float(np.mean(of_direction))

    def __str__(self):
        values = {**self.recalls, "RSUM": self.rsum}
        recalls = ", ".join(f"{name} {r:.2f}" for name, r in values.items())
        return (
            f"{self.protocol}; split: {self.split}, {self.images} images, "
            f"{self.texts} texts\n{recalls}"
        )


def retrieval_recall(
    scores,
    text_image_ids,
    image_ids=None,
    ks=(1, 5, 10),
    folds=1,
    split="not stated",
):
    """Compute the recall of images for texts and of texts for images.

    An item is found at rank k if fewer than k other items have an equal or
    higher score, so equal scores count as misses. An image may have any number
    of texts; the best of them counts. The scores are read in blocks of images,
    so a `numpy.memmap` need not fit into memory.

    Args:
        scores: float array or tensor `(images, texts)`, higher is better.
        text_image_ids: array-like `(texts,)`, the image id of each text.
        image_ids: array-like `(images,)`, the distinct ids of the rows of
            `scores`; by default the row numbers.
        ks: sequence of int, the ranks k.
        folds: int, number of consecutive parts of the images; recalls are
            means over the folds. With 5 folds, COCO's 5,000 test images give
            the easier "1k" figures.
        split: str, name of the split for the report.

    Returns:
        `RetrievalReport`.

    Raises:
        ValueError: inconsistent shapes, ranks or folds that are not counts,
            scores that are NaN, repeated image ids, a text of an unknown
            image, or an image without text.

    Example:

    ```python
    scores = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.1]])
    report = retrieval_recall(scores, text_image_ids=[0, 1, 1], ks=(1,))
    report.recalls  # {"IR@1": 66.7, "TR@1": 100.0}
    ```

    Source: the retrieval evaluation of BridgeTower.
    """
    if not isinstance(scores, np.ndarray):
        scores = keras.ops.convert_to_numpy(scores)
    owner = _owners(scores, text_image_ids, image_ids)
    images = len(scores)
    for k in ks:
        checks.check_count("ks", k)
    checks.check_at_most("folds", folds, images, "images")
    found = {f"{name}@{k}": [] for name in ("IR", "TR") for k in ks}
    for rows in np.array_split(np.arange(images), folds):
        image_ranks, text_ranks = _ranks(scores, owner, rows)
        for k in ks:
            found[f"IR@{k}"].append(100 * np.mean(text_ranks < k))
            found[f"TR@{k}"].append(100 * np.mean(image_ranks < k))
    return RetrievalReport(
        {name: float(np.mean(values)) for name, values in found.items()},
        images=images // folds,
        texts=len(owner) // folds,
        split=split,
        protocol=PROTOCOL + (f", mean of {folds} folds" if folds > 1 else ""),
    )


def list_ndcg(scores, grades, k=10):
    """Compute nDCG@k of each list.

    Args:
        scores: float array `(lists, candidates)`. Of equal ones the first
            comes first.
        grades: float array like `scores`, from 0; a gain is `2 ** grade - 1`.
        k: int, places that count.

    Returns:
        float64 array `(lists,)`, 0 for a list without a grade above 0.

    Example:

    ```python
    list_ndcg(np.array([[0.1, 0.9]]), np.array([[1, 0]]))  # [0.63]
    ```
    """
    gains = 2.0 ** np.asarray(grades, "float64") - 1
    order = np.argsort(-scores, axis=1, kind="stable")
    discounts = 1 / np.log2(np.arange(min(k, gains.shape[1])) + 2)

    def dcg(gains):
        return gains[:, :k] @ discounts

    best = dcg(-np.sort(-gains, axis=1))
    found = dcg(np.take_along_axis(gains, order, axis=1))
    return np.divide(found, best, out=np.zeros_like(best), where=best > 0)


def paired_interval(differences, units=None, draws=10_000, seed=0):
    """Return the mean of paired differences, and its 95 % interval.

    Args:
        differences: float array `(queries,)`.
        units: int array `(queries,)`, or None. Queries of the same number are
            drawn together.
        draws: int, resamples of the bootstrap over queries, or over units.
        seed: int.

    Returns:
        `(mean, low, high)`, floats.
    """
    rng = np.random.default_rng(seed)
    units = np.arange(len(differences)) if units is None else units
    sums, counts = np.bincount(units, differences), np.bincount(units)
    drawn = rng.integers(len(sums), size=(draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(np.mean(differences)), float(low), float(high)


def _owners(scores, text_image_ids, image_ids):
    """Return the row of each text's image in `scores`."""
    if len(text_image_ids) != scores.shape[1]:
        raise ValueError(
            "`text_image_ids` must hold one id for each column of `scores`. "
            f"Received: {len(text_image_ids)} ids, {scores.shape[1]} columns"
        )
    image_ids = range(len(scores)) if image_ids is None else image_ids
    row = {image: i for i, image in enumerate(np.asarray(image_ids).tolist())}
    if len(row) != len(scores):
        raise ValueError(
            "`image_ids` must be distinct, one for each row of `scores`. "
            f"Received: {len(row)} distinct ids, {len(scores)} rows"
        )
    texts = np.asarray(text_image_ids).tolist()
    if {*texts} != {*row}:
        wrong = sorted({*texts} ^ {*row}, key=str)
        raise ValueError(
            "`text_image_ids` must name images of `scores` alone, and each of "
            f"them. Received: {len(wrong)} unknown or missing, {wrong[:10]}"
        )
    return np.array([row[image] for image in texts])


def _ranks(scores, owner, rows):
    """Count, for each image and text, the others that score at least as high.

    Args:
        scores: float array `(images, texts)`.
        owner: int array `(texts,)`, the row of the image of each text.
        rows: int array, the consecutive rows of one fold.
    """
    texts = np.flatnonzero((owner >= rows[0]) & (owner <= rows[-1]))
    owner = owner[texts]
    own_scores = scores[owner, texts]
    image_ranks, text_ranks = [], np.zeros(len(texts), "int64")
    step = max(1, _BLOCK // scores.shape[1])
    for first in range(rows[0], rows[-1] + 1, step):
        last = min(first + step, rows[-1] + 1)
        block = np.asarray(scores[first:last])[:, texts]
        if np.isnan(block).any():
            raise ValueError("`scores` must not be NaN.")
        own = owner == np.arange(first, last)[:, None]
        best = np.array(
            [row[mine].max() for row, mine in zip(block, own, strict=True)]
        )
        image_ranks.append(((block >= best[:, None]) & ~own).sum(axis=1))
        # The first sum counts a text's own image too.
        text_ranks += (block >= own_scores).sum(axis=0) - own.sum(axis=0)
    return np.concatenate(image_ranks), text_ranks
