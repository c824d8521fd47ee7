"""Filters a data set: scores its shards, finds a threshold, keeps the best."""

import dataclasses

from keras_bridgetower.apps.filtering import tables
from keras_bridgetower.apps.filtering import threshold as thresholds
from keras_bridgetower.apps.filtering.checks import check_place
from keras_bridgetower.apps.filtering.checks import checked_rule
from keras_bridgetower.apps.filtering.folder import FilterFolder
from keras_bridgetower.apps.filtering.samples import shards_of
from keras_bridgetower.apps.filtering.scoring import SCORES
from keras_bridgetower.apps.filtering.scoring import PairScorer
from keras_bridgetower.checks import check_count

# Bad samples that a report names.
_NAMED = 20


@dataclasses.dataclass(frozen=True)
class FilterReport:
    """What a run of a filter did.

    Args:
        shards: int, shards of the data set.
        scored_before: int, those whose scores stood already.
        samples: int, samples of all shards.
        bad: int, those without scores.
        kept: int, those that reach the threshold.
        by: str, the score that decides.
        threshold: float, the lowest score that is kept; None if no sample
            could be scored.
        bad_samples: tuple of `(shard, key, error)`, the first of the bad ones.
            All of them are in the tables of scores.
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
    by=None,
    keep_share=None,
    threshold=None,
    write_tars=False,
    batch_size=32,
    on_shards=None,
):
    """Score the pairs of a data set, and keep the best.

    Writes `OUT/scores` and `OUT/kept`, a Parquet file for each shard, and
    `OUT/tars` if it is asked for. After an interruption the same call goes on
    with the shard where it was. With another share, only what is kept is
    written anew.

    Args:
        source: path of a tar of WebDataset, or of a folder with tars, or with
            folders as img2dataset writes them.
        out: path of a folder, new or begun.
        preset: as `PairScorer`.
        scores: tuple of `"itm"` and `"itc"`, or one of them.
        by: str, the score that decides. By default the first of `scores`.
        keep_share: float above 0 and up to 1, the share of the scored samples
            that is kept.
        threshold: float, the lowest score that is kept. Give this or
            `keep_share`.
        write_tars: bool, whether to write the samples that are kept as tars.
        batch_size: int, pairs of a forward pass.
        on_shards: callable of the shards that are scored and of all; or None.

    Returns:
        `FilterReport`.

    Raises:
        ValueError: an argument, source, folder or preset that does not fit.
        ImportError: pyarrow is not installed.

    Example:

    ```python
    report = run("laion", "filtered", "bridgetower_large_itm_mlm_itc",
                 keep_share=0.3)
    ```

    Source: the filter by CLIP scores of DataComp.
    """
    check_count("batch_size", batch_size)
    by = checked_rule(scores, by, keep_share, threshold)
    tables.parquet()
    folder = FilterFolder(out)
    check_place(source, folder.path)
    shards = shards_of(source)
    # In one order, whichever decides.
    names = tuple(name for name in SCORES if name in scores)
    scorer = PairScorer(preset, names, batch_size)
    with folder.writing():
        folder.begin({"scores": list(names), **scorer.identity()})
        before = _score(folder, shards, scorer, on_shards)
        if keep_share is not None:
            threshold = thresholds.of_share(
                lambda: _column(folder, shards, by), keep_share
            )
        kept = folder.keep(shards, names, by, threshold, write_tars)
        samples, bad, named = _bad(folder, shards)
        return FilterReport(
            shards=len(shards),
            scored_before=before,
            samples=samples,
            bad=bad,
            kept=kept,
            by=by,
            threshold=threshold,
            bad_samples=tuple(named),
        )


def _score(folder, shards, scorer, on_shards):
    """Score the shards that are not, and return how many were."""
    before = 0
    for number, shard in enumerate(shards):
        if on_shards:
            on_shards(number, len(shards))
        path, state = folder.scores(shard), shard.state()
        if tables.stands(path, state):
            before += 1
            continue
        scored = scorer.score(shard.samples())
        tables.write_scores(path, scored, scorer.scores, state)
    if on_shards:
        on_shards(len(shards), len(shards))
    return before


def _column(folder, shards, name):
    for shard in shards:
        for some in tables.batches(folder.scores(shard), (name,)):
            yield some[name]


def _bad(folder, shards):
    """The number of samples, and of bad ones, and the first of those."""
    samples, bad, named = 0, 0, []
    for shard in shards:
        for some in tables.batches(folder.scores(shard), ("key", "error")):
            samples += len(some["key"])
            for key, error in zip(some["key"], some["error"], strict=True):
                if error is not None:
                    bad += 1
                    if len(named) < _NAMED:
                        named.append((shard.name, key, error))
    return samples, bad, named
