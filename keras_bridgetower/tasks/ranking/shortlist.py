"""Which pairs of a ranking are scored, and the best of their scores."""

import dataclasses
import warnings

import numpy as np

# Logit of the pairs that a shortlist leaves out.
NOT_SCORED = -100.0
# Similarities that are sorted at a time: some tens of MB.
_SORTED = 1_000_000


def shortlisted(images, texts, k):
    """The k texts nearest to each image and the k images nearest to each text.

    The authors score both lists, -100 elsewhere, and take the maximum: the
    score of a pair that is in either list.

    Args:
        images: float array `(N, width)`, unit vectors.
        texts: float array `(M, width)`, unit vectors.
        k: int.

    Returns:
        bool array `(N, M)`.

    Example:

    ```python
    shortlisted(np.eye(3), np.eye(3), k=1).sum()  # 3
    ```

    Source: `compute_irtr_itm_itc_recall` of BridgeTower.
    """
    chosen = np.zeros((len(images), len(texts)), bool)
    _choose(chosen, images, texts, k)
    _choose(chosen.T, texts, images, k)
    return chosen


def _choose(chosen, queries, candidates, k):
    step = max(1, _SORTED // len(candidates))
    for first in range(0, len(queries), step):
        near = queries[first : first + step] @ candidates.T
        best = np.argsort(-near, axis=1, kind="stable")[:, :k]
        np.put_along_axis(chosen[first : first + step], best, True, axis=1)


def checked_shortlist(task, k, images, texts):
    """The length of a shortlist, at most that of the pool.

    Args:
        task: a `BridgeTowerRetrieval`.
        k: int.
        images, texts: int, how many there are.

    Returns:
        int.

    Raises:
        ValueError: the task has no contrastive heads, or random ones.
    """
    if task.projection_dim is None:
        raise ValueError(
            "`shortlist` must be None without contrastive heads: they say "
            "which pairs are near. Use a task or preset with "
            "`projection_dim`, trained with objective='hard_negatives' or by "
            f"pre-training. Received: shortlist={k}, projection_dim=None"
        )
    task.new_heads.check("rank", ("itc",))
    if k > min(images, texts):
        warnings.warn(
            f"shortlist={k} is longer than the pool of {images} images and "
            f"{texts} texts, and clamped to it.",
            stacklevel=4,
        )
    return min(k, max(images, texts))


@dataclasses.dataclass(frozen=True)
class TopMatches:
    """The best matches, in both directions.

    Args:
        images: list with one entry for each text: a list of
            `(index of an image, match logit)`, the best first.
        texts: list with one entry for each image: a list of
            `(index of a text, match logit)`, the best first. Pairs that a
            shortlist left out are in neither.
    """

    images: list
    texts: list


def top_matches(scores, top_k):
    """The best of a matrix of scores.

    Args:
        scores: float array `(images, texts)`.
        top_k: int, how many of each row and column; fewer where there are
            no more.

    Returns:
        `TopMatches`.

    Example:

    ```python
    scores = np.array([[0.9, 0.1], [0.3, 0.8], [0.7, 0.2]])
    top_matches(scores, top_k=1).images  # [[(0, 0.9)], [(1, 0.8)]]
    ```
    """

    def best(row):
        order = np.argsort(-row, kind="stable")[:top_k].tolist()
        return [(i, float(row[i])) for i in order if row[i] > NOT_SCORED]

    return TopMatches(
        images=[best(column) for column in scores.T],
        texts=[best(row) for row in scores],
    )
