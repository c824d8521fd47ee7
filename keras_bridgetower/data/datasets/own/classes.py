"""The classes of own data, and what a row asks for among them."""

import collections

from keras_bridgetower.data.datasets.own.tables import listed
from keras_bridgetower.metrics.vqa_answers import normalize_answer
from keras_bridgetower.metrics.vqa_answers import soft_scores

# VQAv2's rule leaves one person out and asks three of the others, which says
# nothing of an answer that one or two people gave.
PEOPLE = 10


def _shares(answers):
    """As `soft_scores`, where an answer's score is its share of the people."""
    counts = collections.Counter(map(normalize_answer, answers))
    return {text: n / len(answers) for text, n in counts.items()}


class _NoClasses:
    """Captions."""

    def spell(self, text):
        raise ValueError(
            f"`labels` must be left out for captions. Received: {text!r}"
        )

    def all_of(self, rows, min_count):
        return []

    def target(self, path, number, row, ids):
        return ()


class _Answers:
    """Answers of one or of several people."""

    def spell(self, text):
        return normalize_answer(str(text))

    def all_of(self, rows, min_count):
        given = collections.Counter(
            answer for row in rows for answer in listed(row.target)
        )
        counts = collections.Counter()
        # Each spelling is normalised once, which takes longer than counting.
        for answer, count in given.items():
            counts[normalize_answer(answer)] += count
        labels = [label for label, n in counts.items() if n >= min_count]
        if not labels:
            raise ValueError(
                "Some answer must occur `min_count` times in the tables. "
                f"Received: min_count={min_count}"
            )
        return labels

    def target(self, path, number, row, ids):
        answers = listed(row.target)
        score = soft_scores if len(answers) >= PEOPLE else _shares
        known = {ids[a]: s for a, s in score(answers).items() if a in ids}
        return tuple(known), tuple(known.values())


class _Labels:
    """One class for each row."""

    def spell(self, text):
        return str(text).strip()

    def all_of(self, rows, min_count):
        labels = sorted({self.spell(row.target) for row in rows})
        try:
            return sorted(labels, key=int)
        except ValueError:
            return labels

    def target(self, path, number, row, ids):
        label = self.spell(row.target)
        if label not in ids:
            raise ValueError(
                f"Each label of {path} must be one of {list(ids)}. Received: "
                f"{row['label']!r} in row {number}"
            )
        return ((ids[label],),)


# By task.
CLASSES = {
    "vqa": _Answers(),
    "captions": _NoClasses(),
    "entailment": _Labels(),
    "image_classification": _Labels(),
    "text_classification": _Labels(),
}
