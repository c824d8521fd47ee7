"""The best of a matrix of scores, in both directions."""

import dataclasses

import numpy as np

from keras_bridgetower.tasks.ranking.shortlist import NOT_SCORED


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
