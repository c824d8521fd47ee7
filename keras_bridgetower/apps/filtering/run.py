"""Filters a data set: scores its pairs and keeps the best."""

import dataclasses
import os
import pathlib

import numpy as np

from keras_bridgetower.apps.filtering.folder import FilterFolder
from keras_bridgetower.apps.filtering.folder import is_current
from keras_bridgetower.apps.filtering.folder import read_table
from keras_bridgetower.apps.filtering.folder import share_threshold
from keras_bridgetower.apps.filtering.folder import write_scores
from keras_bridgetower.apps.filtering.samples import find_shards
from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict.batches import each_or_refused
from keras_bridgetower.apps.predict.batches import read_ahead
from keras_bridgetower.apps.predict.identity import model_checksum
from keras_bridgetower.apps.predict.identity import reading_values
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_part
from keras_bridgetower.preprocessing.images import decode_image
from keras_bridgetower.presets.table import preset_name
from keras_bridgetower.tasks import by_name

# Names of scores, each a column.
SCORES = ("itm", "itc")
_VERBS = {"itm": "retrieval", "itc": "embed_images"}
# Number of bad samples that a report names.
_NAMED = 20


@dataclasses.dataclass(frozen=True)
class FilterReport:
    """Result of a filter.

    Args:
        shards: int, shards of the data set.
        scored_before: int, shards whose scores existed already.
        samples: int, samples of all shards.
        bad: int, samples without scores.
        kept: int, samples that reach the threshold.
        by: str, the score that decides.
        threshold: float, the lowest kept score; None if no sample could be
            scored.
        bad_samples: tuple of `(shard, key, error)` of the first 20 bad ones.
            The tables of scores have all of them.
    """

    shards: int
    scored_before: int
    samples: int
    bad: int
    kept: int
    by: str
    threshold: float | None
    bad_samples: tuple


def run(
    source,
    out,
    preset,
    scores=SCORES,
    keep_share=None,
    threshold=None,
    write_tars=False,
    batch_size=32,
    on_shards=lambda done, total: None,
):
    """Score the pairs of a data set, and keep the best.

    Writes `OUT/scores` and `OUT/kept`, a Parquet file for each shard, and
    `OUT/tars` with `write_tars`. After an interruption the same call continues
    with the next shard. Another share reuses the scores.

    Args:
        source: path of a tar of WebDataset, or of a folder with tars, or with
            folders as img2dataset writes them.
        out: path of a folder, new or begun.
        preset: as `PairScorer`.
        scores: tuple of `"itm"` and `"itc"`, or one of them. The first one
            decides.
        keep_share: float above 0 and up to 1, the share of the scored samples
            to keep.
        threshold: float, the lowest score to keep. Give this or `keep_share`.
        write_tars: bool, True to write the kept samples as tars.
        batch_size: int, pairs per forward pass.
        on_shards: callable of the numbers of scored and of all shards.

    Returns:
        `FilterReport`.

    Raises:
        ValueError: an argument, source, folder or preset of the wrong kind.
        ImportError: pyarrow is not installed.

    Source: the filter by CLIP scores of DataComp.
    """
    _check_rule(scores, keep_share, threshold)
    folder = FilterFolder(out)
    _check_place(source, folder.path)
    shards, by = find_shards(source), scores[0]
    # In the same order whichever score decides.
    names = tuple(name for name in SCORES if name in scores)
    scorer = PairScorer(preset, names, batch_size)
    with output.locked(folder.path):
        folder.begin({"scores": list(names), **scorer.identity()})
        before = _score(folder, shards, scorer, on_shards)
        if keep_share is not None:
            columns = (
                read_table(folder.scores(shard), [by])[by].to_numpy()
                for shard in shards
            )
            threshold = share_threshold(columns, keep_share)
        kept = folder.keep(shards, names, by, threshold, write_tars)
        return FilterReport(
            shards=len(shards),
            scored_before=before,
            kept=kept,
            by=by,
            threshold=threshold,
            **_bad(folder, shards),
        )


def _score(folder, shards, scorer, on_shards):
    """Score shards. Return the number of those that had scores already."""
    before = 0
    for number, shard in enumerate(shards):
        on_shards(number, len(shards))
        path, state = folder.scores(shard), shard.state()
        if is_current(path, state):
            before += 1
            continue
        scored = scorer.score(shard.samples())
        write_scores(path, scored, scorer.scores, state)
    on_shards(len(shards), len(shards))
    return before


def _bad(folder, shards):
    """Count samples and bad ones, and find the first bad ones."""
    samples, bad, named = 0, 0, []
    for shard in shards:
        table = read_table(folder.scores(shard), ["key", "error"])
        samples += len(table)
        found = [
            (shard.name, row["key"], row["error"])
            for row in table.to_pylist()
            if row["error"] is not None
        ]
        bad += len(found)
        named += found[: _NAMED - len(named)]
    return {"samples": samples, "bad": bad, "bad_samples": tuple(named)}


def _check_rule(scores, keep_share, threshold):
    for score in scores:
        check_choice("scores", score, SCORES)
    if (keep_share is None) == (threshold is None):
        raise ValueError("Give either `keep_share` or `threshold`.")
    if keep_share is not None:
        check_part("keep_share", keep_share)


def _check_place(source, out):
    source = pathlib.Path(os.path.abspath(source))
    if out == source or source in out.parents:
        raise ValueError(
            f"OUT must not be inside SOURCE. Received: {str(out)!r}"
        )


class PairScorer:
    """The heads of a preset that score pairs.

    Args:
        preset: as `from_preset` of a task takes it.
        scores: tuple of names in `SCORES`: `"itm"`, the score of the matching
            head (`BridgeTowerRetrieval.score`), and `"itc"`, the cosine of
            the vectors of the contrastive head. Both share one backbone.
        batch_size: int, pairs per forward pass.

    Raises:
        ValueError: no such preset, or one without such a head.
    """

    def __init__(self, preset, scores, batch_size=32):
        self.scores = scores
        self._batch_size = batch_size
        if len(scores) == len(SCORES):
            models = SearchModels.from_preset(preset)
            self._tasks = {"itm": models.retrieval, "itc": models.contrastive}
        else:
            [score] = scores
            self._tasks = {score: by_name.open_verb(preset, _VERBS[score])}
        if None in self._tasks.values():
            raise ValueError(
                "`preset` must have a matching head for the score itm. Take "
                f"the score itc alone. Received: preset={preset!r}"
            )
        self._preset = preset_name(preset)

    def identity(self):
        """Return the values on which the scores depend."""
        task = self._tasks[self.scores[0]]
        return {
            "preset": self._preset,
            "sums": {
                name: model_checksum(t) for name, t in self._tasks.items()
            },
            "dtype": task.backbone.dtype_policy.name,
            **reading_values(task.needed_preprocessor()),
        }

    def score(self, samples):
        """Score samples, and decode pictures while the model runs.

        Args:
            samples: iterable of `Sample`. About two batches are in memory.

        Yields:
            Each `Sample` without picture and text, and a dict from the name of
            a score to float, empty if the sample has an error.
        """
        for batch in read_ahead(samples, self._batch_size, _decode):
            good = [pair for pair in batch if pair[0].error is None]
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
        """Return `(scores, error)` for pairs of a sample and its picture."""
        images = [image for _, image in pairs]
        texts = [sample.text for sample, _ in pairs]
        columns = [self._column(name, images, texts) for name in self.scores]
        results = []
        for values in zip(*columns, strict=True):
            found, error = dict(zip(self.scores, values, strict=True)), None
            if not np.isfinite(values).all():
                error = f"its scores must be finite. Received: {found}"
                found = {}
            results.append((found, error))
        return results

    def _column(self, name, images, texts):
        """Return one score of each pair, a list of float."""
        task, size = self._tasks[name], self._batch_size
        if name == "itm":
            return task.score(images, texts, size).tolist()
        text_vectors = task.embed(
            texts=texts, batch_size=size, long_texts="cut_end"
        )
        vectors = task.embed(images=images, batch_size=size)
        return (vectors * text_vectors).sum(axis=1).tolist()


def _decode(sample):
    if sample.error is not None:
        return sample, None
    try:
        return sample, decode_image(sample.image, "picture")
    except ValueError as error:
        return dataclasses.replace(sample, error=str(error)), None
