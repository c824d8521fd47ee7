"""Writes an index: embeds what is new, keeps the rest, goes on after a kill."""

import dataclasses
import time

import numpy as np

from keras_bridgetower.apps.predict.rows import UNREADABLE_FOLDER
from keras_bridgetower.apps.search.reading import KnownPictures
from keras_bridgetower.apps.search.reading import PictureReader
from keras_bridgetower.apps.search.reading import full_path
from keras_bridgetower.apps.search.removing import of_source
from keras_bridgetower.files import file_is_gone

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
        unchanged: int, those that are in the index already.
        unreadable: int, those that cannot be read.
        copied: int, those whose vector was copied from an equal picture.
    """

    done: int
    total: int
    embedded: int
    unchanged: int
    unreadable: int
    copied: int = 0


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """What a run of `index` did.

    Args:
        total: int, pictures of the source.
        embedded: int, those that are new or were changed.
        unchanged: int, those that were in the index already.
        removed: int, those that were in it and are gone from the source, or
            cannot be read any more, with the old paths of files that were
            moved into the source. If a folder of the source cannot be read,
            pictures are removed only if their files are known to be gone or
            cannot be read.
        unreadable: tuple of `UnreadablePicture`.
        passed_over: dict from what is no picture, such as `".txt"`, to how
            many of it there were.
        ann: bool, whether queries use an ANN structure now.
        copied: int, those that are new in the index, such as renamed files,
            and have the content of a picture that it held: their vector was
            copied.
    """

    total: int
    embedded: int
    unchanged: int
    removed: int
    unreadable: tuple
    passed_over: dict
    ann: bool
    copied: int = 0


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
        known = KnownPictures(store.pictures(), vectors == "fused")
        converter = models.contrastive.needed_preprocessor().image_converter
        reader = PictureReader(source, converter, known)
        run = _Run(store, models, reader, vectors, batch_size, save_every)
        reading = reader.read(rows, ahead=2 * batch_size)
        for done, read in enumerate(reading, 1):
            run.take(read)
            if tell and done % batch_size == 0 and done < rows.count:
                tell(run.progress(done, rows.count))
        run.finish()
        if tell:
            tell(run.progress(rows.count, rows.count))
        gone = _gone(
            known, run, source, unseen=rows.passed_over[UNREADABLE_FOLDER]
        )
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
            copied=run.copied,
        )


def _gone(known, run, source, unseen):
    """The pictures that leave the index after a run.

    Args:
        known: `KnownPictures`.
        run: `_Run`.
        source: path of the source.
        unseen: int, folders of the source that could not be read.

    Returns:
        list of their ids.
    """
    is_own = of_source(full_path(source))
    # Files that were moved here, also by a run that was interrupted.
    kept = {known.content(known[id]) for id in run.kept}
    gone = []
    for id, picture in known.items():
        if id in run.held:
            continue
        own = is_own(picture)
        # A folder that could not be read may hold its pictures as before.
        leaves = id in run.refused or (own and not unseen)
        if not leaves and (own or known.content(picture) in kept):
            leaves = file_is_gone(picture.file)
        if leaves:
            gone.append(id)
    return gone


class _Run:
    """The pictures of a run, from read to written.

    Args:
        store, models, vectors, batch_size, save_every: as `write_index`.
        reader: `PictureReader`.

    Attributes:
        held: set of the ids of the pictures that the index holds or will.
        refused: set of the ids of those that cannot be read.
        kept: set of the ids of those whose vectors are unchanged, or were
            copied to others.
    """

    def __init__(self, store, models, reader, vectors, batch_size, save_every):
        self._store, self._models, self._reader = store, models, reader
        self._fused = vectors == "fused"
        self._batch_size, self._save_every = batch_size, save_every
        self._read, self._copies, self._made = [], [], []
        self._saved = time.monotonic()
        self.held, self.refused, self.kept = set(), set(), set()
        self.unreadable = []
        self.embedded = self.unchanged = self.copied = 0

    def take(self, read):
        """Take the next `ReadPicture`."""
        if read.error is not None:
            self._refuse(read, read.error)
        elif read.stored.id in self.held:
            self._refuse(read, "the same row stands in the source before")
        elif read.equal is not None:
            self.held.add(read.stored.id)
            self._copies.append(read)
            if len(self._copies) == self._save_every:
                self._copy()
        elif read.image is None:
            self.held.add(read.stored.id)
            self.kept.add(read.stored.id)
            self.unchanged += 1
        else:
            self.held.add(read.stored.id)
            self._read.append(read)
            if len(self._read) == self._batch_size:
                self._embed()

    def finish(self):
        """Embed and write what is left."""
        self._copy()
        if self._read:
            self._embed()
        self._save()

    def _embed(self):
        some, self._read = self._read, []
        self._add(self._embedded(some))

    def _copy(self):
        some, self._copies = self._copies, []
        found = self._store.vectors([read.equal for read in some])
        made = []
        for read in some:
            sum_now, vector = found.get(read.equal, (None, None))
            if sum_now == read.stored.sum:
                self.kept.add(read.equal)
                made.append((read.stored, vector))
            else:
                # This run has given the equal picture another content.
                self.held.remove(read.stored.id)
                self.take(self._reader.decode(read))
        self.copied += len(made)
        self._add(made)

    def _add(self, made):
        self._made += made
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
            self.copied,
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
