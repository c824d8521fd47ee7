"""Writes an index: embeds what is new, keeps the rest, goes on after a kill."""

import dataclasses
import time

import numpy as np

from keras_bridgetower.predict.rows import UNREADABLE_FOLDER
from keras_bridgetower.search.reading import PictureReader
from keras_bridgetower.search.reading import full_path

# Seconds after which embedded pictures are written, be they few.
_WAIT = 30


@dataclasses.dataclass(frozen=True)
class UnreadablePicture:
    """A picture that could not be indexed.

    Args:
        path: str, as the folder or table names it.
        error: str, why.
    """

    path: str
    error: str


@dataclasses.dataclass(frozen=True)
class IndexProgress:
    """How far a run of `index` is.

    Args:
        done: int, pictures that are dealt with.
        total: int, pictures of the source.
        embedded: int, those that were embedded.
        unchanged: int, those that stand in the index already.
        unreadable: int, those that cannot be read.
    """

    done: int
    total: int
    embedded: int
    unchanged: int
    unreadable: int


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """What a run of `index` did.

    Args:
        total: int, pictures of the source.
        embedded: int, those that are new or were changed.
        unchanged: int, those that stood in the index already.
        removed: int, those that stood in it and are gone from the source, or
            cannot be read any more. Of a source with a folder that cannot be
            read only the latter are removed.
        unreadable: tuple of `UnreadablePicture`.
        passed_over: dict from what is no picture, such as `".txt"`, to how
            many of it there were.
        ann: bool, whether queries use an ANN structure now.
    """

    total: int
    embedded: int
    unchanged: int
    removed: int
    unreadable: tuple
    passed_over: dict
    ann: bool


def write_index(
    store, models, rows, source, vectors, batch_size, save_every, ann_from, tell
):
    """Make a store hold the pictures of a source, and no others of it.

    Args:
        store: `Store` with a header of these models.
        models: `SearchModels`.
        rows: `Rows` of the source.
        source: path of the source.
        vectors: `"image"` or `"fused"`.
        batch_size: int, pictures of a forward pass.
        save_every: int, pictures that are written together.
        ann_from: as `Store.tidy`.
        tell: callable of an `IndexProgress`, or None.

    Returns:
        `IndexReport`.

    Raises:
        ValueError: another process is writing.
    """
    with store.writing():
        run = _Run(store, models, vectors, batch_size, save_every)
        known = store.sums(full_path(source))
        converter = models.contrastive.needed_preprocessor().image_converter
        reader = PictureReader(source, converter, known)
        reading = reader.read(rows, ahead=2 * batch_size)
        for done, read in enumerate(reading, 1):
            run.take(read)
            if tell and done % batch_size == 0 and done < rows.count:
                tell(run.progress(done, rows.count))
        run.finish()
        if tell:
            tell(run.progress(rows.count, rows.count))
        gone = sorted(set(known) - run.held)
        if rows.passed_over[UNREADABLE_FOLDER]:
            # What it holds was not seen, and may be there as before.
            gone = [id for id in gone if id in run.refused]
        store.remove(gone)
        store.tidy(ann_from)
        store.write_header({**store.header(), "whole": True})
        return IndexReport(
            total=rows.count,
            embedded=run.embedded,
            unchanged=run.unchanged,
            removed=len(gone),
            unreadable=tuple(run.unreadable),
            passed_over=dict(sorted((+rows.passed_over).items())),
            ann=store.has_ann(),
        )


class _Run:
    """The pictures of a run, from read to written.

    Args:
        store, models, vectors, batch_size, save_every: as `write_index`.

    Attributes:
        held: set of the ids of the pictures that the index holds or will.
        refused: set of the ids of those that cannot be read.
    """

    def __init__(self, store, models, vectors, batch_size, save_every):
        self._store, self._models = store, models
        self._fused = vectors == "fused"
        self._batch_size, self._save_every = batch_size, save_every
        self._read, self._made = [], []
        self._saved = time.monotonic()
        self.held, self.refused, self.unreadable = set(), set(), []
        self.embedded = self.unchanged = 0

    def take(self, read):
        """Take the next `ReadPicture`."""
        if read.error is not None:
            self._refuse(read, read.error)
        elif read.stored.id in self.held:
            self._refuse(read, "the same row stands in the source before")
        elif read.image is None:
            self.held.add(read.stored.id)
            self.unchanged += 1
        else:
            self.held.add(read.stored.id)
            self._read.append(read)
            if len(self._read) == self._batch_size:
                self._embed()

    def finish(self):
        """Embed and write what is left."""
        if self._read:
            self._embed()
        self._save()

    def _embed(self):
        some, self._read = self._read, []
        self._made += self._embedded(some)
        waited = time.monotonic() - self._saved > _WAIT
        if len(self._made) >= self._save_every or waited:
            self._save()

    def _save(self):
        if self._made:
            pictures, vectors = zip(*self._made, strict=True)
            self._store.put(list(pictures), np.stack(vectors))
        self._made = []
        self._saved = time.monotonic()

    def progress(self, done, total):
        return IndexProgress(
            done,
            total,
            self.embedded,
            self.unchanged,
            len(self.unreadable),
        )

    def _embedded(self, some):
        """`(StoredPicture, vector)` of those that the model takes."""
        given = {"images": [read.image for read in some]}
        if self._fused:
            given["texts"] = [read.stored.text for read in some]
        try:
            vectors = self._models.embed(self._batch_size, **given)
        except ValueError as error:
            if len(some) == 1:
                self.held.discard(some[0].stored.id)
                self._refuse(some[0], str(error))
                return []
            # One picture spoils a batch: each on its own tells which.
            return [made for read in some for made in self._embedded([read])]
        self.embedded += len(some)
        stored = [read.stored for read in some]
        return list(zip(stored, vectors, strict=True))

    def _refuse(self, read, error):
        self.refused.add(read.stored.id)
        self.unreadable.append(UnreadablePicture(read.stored.path, error))
