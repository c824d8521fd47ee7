"""`PictureSearch`: index pictures and find them by text or picture.

A query takes the nearest vectors, which the matching head then reranks.
"""

import dataclasses
import itertools
import os
import threading
import warnings

from keras_bridgetower.apps.predict.rows import open_rows
from keras_bridgetower.apps.search import header as headers
from keras_bridgetower.apps.search.indexing import IndexRun
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.apps.search.stores.store import FolderStore
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.files import file_is_gone
from keras_bridgetower.preprocessing import kept_states
from keras_bridgetower.preprocessing.state_files import KINDS
from keras_bridgetower.presets.table import preset_name

# Fields of a header that are arguments of `SearchModels.from_preset`.
_SETTINGS = (
    *("image_mode", "image_size", "sequence_length", "dtype"),
    "image_tokens",
)


class PictureSearch:
    """An index of pictures and the models that search it.

    The vectors of the contrastive head find pictures. If the preset has a
    matching head that is known to improve such lists, it reranks the nearest.
    With LanceDB or a Qdrant server, any number of threads may query.

    Args:
        store: path of a folder for LanceDB, which need not exist yet;
            `"qdrant:FOLDER"` or `"qdrant:http://HOST:6333"`; or a store such
            as `QdrantServer(...)`.
        preset: as for `SearchModels.from_preset`, or `SearchModels`. None for
            the preset that made the index. It is opened on first use.

    Raises:
        ImportError: the package of the store is not installed.
        ValueError: the folder contains something else, or `preset` is None
            and there is no index.

    Example:

    ```python
    search = PictureSearch("photos.index", "bridgetower_tiny_easy_pretrain")
    report = search.index("photos")
    for hit in search.query("a small red circle", top_k=3):
        print(hit.path, hit.match)
    ```
    """

    def __init__(self, store, preset=None):
        self.store = headers.open_store(store)
        if preset is None:
            preset = headers.read_header(self.store)["preset"]
        self._preset = preset
        self._models = None
        self._sum_checked = False
        self._lock = threading.Lock()

    @property
    def models(self):
        """`SearchModels`, opened on first use."""
        with self._lock:
            self._models = self._models or self._opened()
            return self._models

    def _opened(self):
        if isinstance(self._preset, SearchModels):
            return self._preset
        values = {}
        header = headers.read_header(self.store, needed=False)
        # Uses the preprocessing of the index if the preset is the same.
        if header and header["preset"] == preset_name(self._preset):
            # The preset alone gives its other values.
            values = {n: header[n] for n in _SETTINGS if n in header}
        return SearchModels.from_preset(self._preset, **values)

    def index(
        self,
        source,
        vectors="image",
        batch_size=8,
        save_every=512,
        ann_from=50_000,
        outside=False,
        progress=None,
        states=None,
    ):
        """Add the pictures of a folder or table to the index, or update them.

        A picture whose content is in the index, under any path, is not
        embedded again. Pictures that are gone from this source are deleted
        from the index; those of other sources stay, except files that were
        moved into this source. Overlapping folders share their pictures.
        After an interruption, the same call resumes.

        A source that is missing or has no pictures is rejected, since its
        disk may not be mounted. Use `prune` if its pictures are gone for good.

        Args:
            source: path of a folder, with its subfolders, or of a table
                `.csv` or `.jsonl` with the column `image`, paths below the
                table's folder, and perhaps `id` and `text`.
            vectors: str, `"image"` to embed pictures alone, or `"fused"` to
                embed each picture with its text, which needs a three-way head
                and a table with the column `text`. It is the same for all
                sources of an index.
            batch_size: int, pictures per batch. About three times as many are
                in memory, and the states of a batch in all layers of the
                tower, up to 40 MB a picture. More are faster on an
                accelerator, not on a CPU.
            save_every: int, pictures that are written at once. They are also
                written after half a minute.
            ann_from: int, number of pictures from which the store builds an
                approximate nearest neighbor (ANN) structure. With fewer, each
                query compares all vectors.
            outside: bool, whether a table may list pictures outside its
                folder.
            progress: callable that takes an `IndexProgress`, called after
                each batch; or None.
            states: `"float32"`, `"float16"` or `"int8"` to store the states
                of the image tower, as `keep_states` does, so that a query
                reranks without opening files and running the tower. `info`
                tells how many bytes a picture takes: tokens times the widths
                of all layers, times 4, 2 or 1.
                It needs a folder as store and a matching head, and is the
                same for all sources of an index. None for what the index has.

        Returns:
            `IndexReport`, which lists the pictures that could not be read.

        Raises:
            ValueError: the source does not exist or has no pictures, the
                preset is unknown, the index is of another model, or another
                process is writing to it.
        """
        check_count("batch_size", batch_size)
        needed = ("image", "text") if vectors == "fused" else ("image",)
        optional = tuple({"text"} - set(needed))
        rows = open_rows(source, needed, optional, outside=outside)
        models = self.models
        models.check_kind(vectors)
        if headers.read_header(self.store, needed=False) is None:
            kept = self._described_states(states)
            header = {
                "format": headers.FORMAT,
                "store": self.store.kind,
                "preset": models.preset,
                "dtype": models.dtype,
                **models.identity(vectors),
                **({"states": states} if states else {}),
                # True once a run of `index` has finished.
                "whole": False,
            }
            self.store.create(header, *kept)
        header = headers.read_header(self.store)
        for name, given in (("states", states), ("vectors", vectors)):
            before = header.get(name)
            if given not in (None, before):
                raise ValueError(
                    f"`{name}` must be the same for all pictures of an index. "
                    f"Received: {given!r}, and {before!r} before"
                )
        self._check(header)
        with self.store.writing():
            files, _ = headers.state_files(self.store, header)
            run = IndexRun(
                *(self.store, models, source, vectors, batch_size, save_every),
                files,
            )
            return run.finish(rows, ann_from, progress)

    def query(
        self, text=None, image=None, top_k=10, rerank=None, batch_size=32
    ):
        """Find pictures by a text, a picture, or both.

        Args:
            text: str, or None.
            image: a picture in any form that `load_image` takes, or None.
            top_k: int, number of pictures.
            rerank: int, number of nearest pictures that the matching head
                reranks by their files and the text; 0 for none. None for 128
                if the head is known to improve lists (`SearchModels.reranks`),
                else for none. Without a text, similarity decides the order.
            batch_size: int, pairs per batch.

        Returns:
            list of `Hit`, best first; fewer if the index has no more. Pictures
            whose files are gone are left out, with a warning.

        Raises:
            ValueError: there is neither text nor picture, the text is empty
                or too long, the picture is unreadable, the index is missing,
                incomplete or of another model, or `rerank` is given and the
                preset has no matching head.
        """
        header = headers.read_header(self.store)
        headers.check_whole(self.store, header)
        self._check(header)
        check_count("top_k", top_k)
        vector = self.models.embed_query(text, image)
        if rerank is None:
            rerank = _RERANKED if self.models.reranks else 0
        if rerank > 0 and self.models.retrieval is None:
            raise ValueError(
                "`rerank` must be 0 or None without a matching head; use a "
                f"preset that has one. Received: rerank={rerank}, "
                f"preset={self.models.preset!r}"
            )
        rerank = 0 if text is None else max(0, rerank)
        hits, sums = _nearest(self.store, vector, max(top_k, rerank))
        if rerank:
            near = {hit.path: sums[hit.path] for hit in hits[:rerank]}
            found = self._matches(near, text, batch_size, header)
            judged = [_judged(hit, found[hit.path]) for hit in hits[:rerank]]
            hits[:rerank] = sorted(judged, key=self._sort_key)
        return hits[:top_k]

    def close(self):
        """Close the files and connections of the store."""
        self.store.close()

    def _matches(self, sums, text, batch_size, header):
        """Score pictures with a text, by their states or else by their files.

        Args:
            sums: dict from their paths to the sums of the files.

        Returns:
            dict from path to the score, or to the ValueError for which the
            file cannot be read.
        """
        files, identity = headers.state_files(self.store, header)
        found = {}
        if files is not None:
            stored, there = files.read(list(sums.values()))
            if len(stored):
                task = self.models.retrieval
                states = kept_states.in_memory(stored, identity, task)
                given = states, text, batch_size, self.models.fusion
                scores = task.score_states(*given)
                paths = itertools.compress(sums, there)
                found = dict(zip(paths, scores, strict=True))
        others = [path for path in sums if path not in found]
        scores = self.models.matches(others, text, batch_size)
        return found | dict(zip(others, scores, strict=True))

    def _sort_key(self, hit):
        """Return the key by which hits are sorted, unreadable ones last."""
        if hit.match is None:
            return float("inf")
        return -hit.match - self.models.similarity_weight * hit.similarity

    def _described_states(self, kind):
        """Return a list of what states of a kind are of; empty for None."""
        if kind is None:
            return []
        check_choice("states", kind, KINDS)
        if not isinstance(self.store, FolderStore):
            raise ValueError(
                "`states` needs a folder as store, for their files. Received: "
                f"states={kind!r}, store={self.store.location!r}"
            )
        backbone = getattr(self.models.retrieval, "backbone", None)
        if backbone is not self.models.contrastive.backbone:
            raise ValueError(
                "`states` needs a preset with a matching head, which reads "
                f"them. Received: states={kind!r}, preset="
                f"{self.models.preset!r}"
            )
        return [self.models.describe_states(kind)]

    def _check(self, header):
        """Check the model of the index, once."""
        if not self._sum_checked:
            headers.check_model(self.store, header, self.models)
            self._sum_checked = True


# Pictures that the matching head reads for a query by default.
_RERANKED = 128
# Pictures that a query examines at most to find some whose files exist.
_MOST = 100_000


@dataclasses.dataclass(frozen=True)
class Hit:
    """A result of a query.

    Args:
        path: str, full path of its file.
        similarity: float, cosine of its vector and that of the query.
        match: float, the score (`BridgeTowerRetrieval.score`) of the picture
            and the text of the query; None if it was not reranked.
        name: str, the `id` of its row in the table, or `""`.
        text: str, the text of its row, or `""`.
        problem: str, the error if the file could not be read, or None.
        folder: str, the indexed folder, or that of the table.
    """

    path: str
    similarity: float
    match: float | None = None
    name: str = ""
    text: str = ""
    problem: str | None = None
    folder: str = ""


def _nearest(store, vector, count):
    """Find the nearest distinct pictures whose files exist.

    Returns:
        list of `Hit`, and a dict from their paths to the sums of the files.
    """
    limit = count
    while True:
        found = store.nearest(vector, limit)
        hits, sums, gone = {}, {}, []
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
            sums[stored.file] = stored.sum
        if len(hits) == count or len(found) < limit or limit >= _MOST:
            break
        limit = min(4 * limit, max(_MOST, count))
    if gone:
        warnings.warn(
            "Pictures were left out because their files are gone: "
            f"{len(gone)}, such as {gone[0]!r}. Index their folder again, or "
            "remove them with `prune`.",
            stacklevel=3,
        )
    return list(hits.values()), sums


def _judged(hit, match):
    """Return a hit with its match, or with the ValueError in place of it."""
    if isinstance(match, ValueError):
        return dataclasses.replace(hit, problem=str(match))
    return dataclasses.replace(hit, match=float(match))
