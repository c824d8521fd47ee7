"""Finds the classes in a user's own tables, and the labels of each row."""

import collections

from keras_bridgetower.data.datasets import snli_ve
from keras_bridgetower.data.datasets.own.tables import as_list
from keras_bridgetower.metrics.vqa import normalize_answer
from keras_bridgetower.metrics.vqa import soft_scores

# From this number of people on, answers are scored by VQAv2's rule. For fewer
# people it is not useful, since three of them would have to agree.
PEOPLE = 10


def _share_scores(answers):
    """As `soft_scores`; a score is the share of people who gave the answer."""
    counts = collections.Counter(map(normalize_answer, answers))
    return {text: n / len(answers) for text, n in counts.items()}


class _NoClasses:
    """Captions, which have no classes."""

    def spell(self, text):
        raise ValueError(
            f"`labels` must be left out for captions. Received: {text!r}"
        )

    def find_classes(self, rows, min_count):
        return []

    def target(self, path, number, row, ids):
        return ()


class _Answers:
    """The classes are answers; one or several people answer each question."""

    def spell(self, text):
        return normalize_answer(str(text))

    def find_classes(self, rows, min_count):
        given = collections.Counter(
            answer for row in rows for answer in as_list(row.target)
        )
        counts = collections.Counter()
        # Normalising is slow, so each spelling is normalised only once.
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
        answers = as_list(row.target)
        score = soft_scores if len(answers) >= PEOPLE else _share_scores
        known = {ids[a]: s for a, s in score(answers).items() if a in ids}
        return tuple(known), tuple(known.values())


class _Labels:
    """The classes are labels, one for each row."""

    def spell(self, text):
        return str(text).strip()

    def find_classes(self, rows, min_count):
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
                f"{row.target!r} in row {number}"
            )
        return ((ids[label],),)


class _Judgements(_Labels):
    """As `_Labels`; those of visual entailment are in the order of its task."""

    def find_classes(self, rows, min_count):
        labels = super().find_classes(rows, min_count)
        if set(labels) <= set(snli_ve.LABELS):
            return list(snli_ve.LABELS)
        return labels


# How each task treats classes.
CLASSES = {
    "vqa": _Answers(),
    "captions": _NoClasses(),
    "entailment": _Judgements(),
    "image_classification": _Labels(),
    "text_classification": _Labels(),
}
