"""Scores pairs by the contrastive head (ITC) and the matching head (ITM)."""

import dataclasses

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.apps.predict.batches import each_or_refused
from keras_bridgetower.apps.predict.batches import read_ahead
from keras_bridgetower.apps.predict.identity import compute_dtype
from keras_bridgetower.apps.predict.identity import model_checksum
from keras_bridgetower.apps.predict.identity import reading_values
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.apps.search.models import preset_name
from keras_bridgetower.preprocessing.images import decode_image

# Names of scores, each a column.
SCORES = ("itm", "itc")


class PairScorer:
    """The heads of a preset that score pairs.

    Args:
        preset: as `from_preset` of a task takes it.
        scores: tuple of names in `SCORES`: `"itm"`, the logit of "match" of
            the matching head, and `"itc"`, the cosine of the vectors of the
            contrastive head. With both they share one backbone.
        batch_size: int, pairs per forward pass.

    Raises:
        ValueError: no such preset, or one without such a head.
    """

    def __init__(self, preset, scores, batch_size=32):
        self.scores = scores
        self._batch_size = batch_size
        self._contrastive = self._retrieval = None
        if len(scores) == len(SCORES):
            models = SearchModels.from_preset(preset)
            self._contrastive = models.contrastive
            self._retrieval = models.retrieval
            if self._retrieval is None:
                raise ValueError(
                    "`preset` must have a matching head for the score itm. "
                    f"Take the score itc alone. Received: preset={preset!r}"
                )
        elif scores == ("itc",):
            self._contrastive = kbt.BridgeTowerContrastive.from_preset(preset)
        else:
            self._retrieval = kbt.BridgeTowerRetrieval.from_preset(preset)
        for verb, task in (
            ("embed", self._contrastive),
            ("score", self._retrieval),
        ):
            if task is not None:
                task.new_heads.check(verb, task.answering_heads)
        self._preset = preset_name(preset)

    def identity(self):
        """Return the values on which the scores depend."""
        tasks = {"itm": self._retrieval, "itc": self._contrastive}
        some = tasks[self.scores[0]]
        return {
            "preset": self._preset,
            "sums": {name: model_checksum(tasks[name]) for name in self.scores},
            "dtype": compute_dtype(some),
            **reading_values(some.needed_preprocessor()),
        }

    def score(self, samples):
        """Score samples, and decode pictures while the model runs.

        Args:
            samples: iterable of `Sample`. About two batches are in memory.

        Yields:
            `(Sample without picture and text, dict from the name of a score
            to float)`, in their order; the dict is empty if the sample has an
            error.
        """
        for batch in read_ahead(samples, self._batch_size, _decode):
            good = [(i, s) for s, i in batch if s.error is None]
            scored = iter(
                each_or_refused(self._scored, good, lambda e: ({}, str(e)))
            )
            for sample, _ in batch:
                found, error = {}, sample.error
                if error is None:
                    found, error = next(scored)
                light = dataclasses.replace(
                    sample, image=b"", text="", error=error
                )
                yield light, found

    def _scored(self, pairs):
        """Return `(scores, error)` for pairs of a picture and a sample."""
        images = [image for image, _ in pairs]
        texts = [sample.text for _, sample in pairs]
        columns = {
            name: getattr(self, f"_{name}")(images, texts)
            for name in self.scores
        }
        return [_checked(columns, place) for place in range(len(pairs))]

    def _itm(self, images, texts):
        return self._retrieval.score(images, texts, self._batch_size)

    def _itc(self, images, texts):
        values = {"batch_size": self._batch_size}
        of_images = self._contrastive.embed(images=images, **values)
        of_texts = self._contrastive.embed(
            texts=texts, long_texts="cut_end", **values
        )
        return np.sum(of_images * of_texts, axis=1)


def _checked(columns, place):
    found = {name: float(column[place]) for name, column in columns.items()}
    if not np.isfinite(list(found.values())).all():
        return {}, f"its scores must be finite. Received: {found}"
    return found, None


def _decode(sample):
    if sample.error is not None:
        return sample, None
    try:
        return sample, decode_image(sample.image, "picture")
    except ValueError as error:
        return dataclasses.replace(sample, error=str(error)), None
