"""Answers a query: the nearest vectors, then the order of the matching head."""

import dataclasses
import os
import warnings

from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import is_integer
from keras_bridgetower.files import file_is_gone

# Pictures that a query looks at while it searches for those that are not gone.
_MOST = 100_000


@dataclasses.dataclass(frozen=True)
class Hit:
    """A picture that a query found.

    Args:
        path: str, full path of its file.
        similarity: float, cosine of its vector and the query's.
        match: float, the logit of "match" of the picture and the query's
            text; None where nothing was re-ranked.
        name: str, the `id` of its row in the table, or `""`.
        text: str, the text of its row, or `""`.
        problem: str, why the matching head could not read the file, or None.
        folder: str, the folder or table's folder below which it was indexed.
    """

    path: str
    similarity: float
    match: float | None = None
    name: str = ""
    text: str = ""
    problem: str | None = None
    folder: str = ""


def answer(store, models, text, image, top_k, rerank, batch_size):
    """As `PictureSearch.query`, for a store and models that fit.

    Returns:
        list of `Hit`, the best first.
    """
    check_count("top_k", top_k)
    check_count("batch_size", batch_size)
    if not is_integer(rerank) or rerank < 0:
        raise ValueError(
            "`rerank` must be an integer from 0, the number of pictures that "
            f"the matching head orders. Received: rerank={rerank!r}"
        )
    vector = models.embed_query(text, image)
    if text is None or models.retrieval is None:
        rerank = 0
    hits = _nearest(store, vector, max(top_k, rerank))
    first, rest = hits[:rerank], hits[rerank:]
    return [*_reranked(models, first, text, batch_size), *rest][:top_k]


def _nearest(store, vector, count):
    """The nearest pictures whose files exist, as `Hit`s, each once."""
    asked = count
    while True:
        found = store.nearest(vector, asked)
        hits, gone = {}, []
        for stored, similarity in found:
            key = (os.path.normpath(stored.file), stored.name, stored.text)
            if len(hits) == count or key in hits:
                continue
            if file_is_gone(stored.file):
                gone.append(stored.file)
                continue
            hits[key] = Hit(
                stored.file,
                similarity,
                name=stored.name,
                text=stored.text,
                folder=stored.folder,
            )
        if len(hits) == count or len(found) < asked or asked >= _MOST:
            break
        asked = min(4 * asked, max(_MOST, count))
    if gone:
        warnings.warn(
            "Pictures were left out because their files are gone: "
            f"{len(gone)}, such as {gone[0]!r}. Index their folder again, or "
            "remove them by `prune`.",
            stacklevel=4,
        )
    return list(hits.values())


def _reranked(models, hits, text, batch_size):
    """Hits in the order of the matching head; unreadable ones come last."""
    found = models.matches([hit.path for hit in hits], text, batch_size)
    scored, lost = [], []
    for hit, match in zip(hits, found, strict=True):
        if isinstance(match, ValueError):
            lost.append(dataclasses.replace(hit, problem=str(match)))
        else:
            scored.append(dataclasses.replace(hit, match=float(match)))
    # Equal ones stay in the order of their vectors.
    return [*sorted(scored, key=lambda hit: -hit.match), *lost]
