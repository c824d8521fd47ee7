"""Write an index: embed new pictures, keep the others, resume after a kill."""

import dataclasses
import hashlib
import os
import pathlib
import time
import uuid

import numpy as np

from keras_bridgetower.apps.predict.batches import each_or_refused
from keras_bridgetower.apps.predict.batches import read_ahead
from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.predict.rows import UNREADABLE_FOLDER
from keras_bridgetower.apps.search.header import below
from keras_bridgetower.apps.search.header import full_path
from keras_bridgetower.apps.search.stores.store import StoredPicture
from keras_bridgetower.files import file_is_gone
from keras_bridgetower.files import open_regular
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import open_file

# Pictures that are embedded, in batches, before their states are written: few
# would make many files.
_TOGETHER = 32
# Seconds after which embedded pictures are written, even if few.
_WAIT = 30


@dataclasses.dataclass(frozen=True)
class UnreadablePicture:
    """A picture that could not be indexed.

    Args:
        path: str, relative to the folder, or as in the table.
        error: str, the reason.
    """

    path: str
    error: str


@dataclasses.dataclass(frozen=True)
class IndexProgress:
    """Progress of a run of `index`.

    Args:
        done: int, pictures that are finished.
        total: int, pictures of the source.
        embedded: int, pictures that were embedded.
        unchanged: int, pictures that were in the index already.
        unreadable: int, pictures that cannot be read.
        copied: int, pictures whose vector was copied from an equal picture.
    """

    done: int
    total: int
    embedded: int
    unchanged: int
    unreadable: int
    copied: int = 0


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """Result of a run of `index`.

    Args:
        total: int, pictures of the source.
        embedded: int, pictures that are new or have changed.
        unchanged: int, pictures that were in the index already.
        removed: int, pictures that were deleted from the index: those that
            are gone from the source or have become unreadable, and old paths
            of files that were moved into the source. If a folder of the
            source cannot be read, pictures are deleted only if their files
            are known to be gone or cannot be read.
        unreadable: tuple of `UnreadablePicture`.
        passed_over: dict from kinds of other files, such as `".txt"`, to
            their number.
        ann: bool, True if queries now use an ANN structure.
        copied: int, new pictures, such as renamed files, whose vector was
            copied from an indexed picture with the same content.
    """

    total: int
    embedded: int
    unchanged: int
    removed: int
    unreadable: tuple
    passed_over: dict
    ann: bool
    copied: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ReadPicture:
    """A row of a source whose file was read.

    Args:
        stored: `StoredPicture`.
        image: input for `embed`; None if the index already has its vector, or
            it cannot be read.
        error: str, the reason why it cannot be read, or None.
        equal: str, the id of an indexed picture with the same content, if the
            index does not have this one; or None.
    """

    stored: StoredPicture
    image: object = None
    error: str | None = None
    equal: str | None = None


class IndexRun:
    """A run of `index`: it synchronizes a store with a source's pictures.

    Args:
        store: `Store` with a header of these models.
        models: `SearchModels`.
        source: path of the source.
        vectors: `"image"` or `"fused"`.
        batch_size: int, pictures per batch.
        save_every: int, pictures that are written together.
        states: `StateFiles`, or None.
    """

    def __init__(
        self,
        store,
        models,
        source,
        vectors,
        batch_size,
        save_every,
        states=None,
    ):
        self._store, self._models = store, models
        self._source = full_path(source)
        # A link to a folder is the same folder.
        self._real = os.path.realpath(source)
        preprocessor = models.contrastive.needed_preprocessor()
        self._square = preprocessor.image_converter.square
        self._fused, self._states = vectors == "fused", states
        self._batch_size, self._save_every = batch_size, save_every
        # Pictures of the index at the start, and their ids by their content.
        self._known = {picture.id: picture for picture in store.pictures()}
        self._equal = {self._content(p): id for id, p in self._known.items()}
        self._read, self._copies, self._unsaved = [], [], []
        self._saved = time.monotonic()
        # Ids of pictures that are or will be in the index; that cannot be
        # read; and whose vectors are unchanged, or were copied to others.
        self._present, self._refused, self._kept = set(), set(), set()
        self._unreadable = []
        self._counts = {"embedded": 0, "unchanged": 0, "copied": 0}

    def _content(self, picture):
        """Return the content that determines the vector of a picture."""
        return picture.sum, picture.text if self._fused else ""

    def finish(self, rows, ann_from, tell):
        """Read, embed and write all pictures.

        Args:
            rows: `Rows` of the source.
            ann_from: as in `Store.tidy`.
            tell: callable that takes an `IndexProgress`, or None.

        Returns:
            `IndexReport`.
        """
        store, done = self._store, 0
        for batch in read_ahead(rows, self._batch_size, self._opened_row):
            for read in batch:
                self._take(read)
            done += len(batch)
            if tell and done < rows.count:
                tell(self._progress(done, rows.count))
        self._copy()
        self._embed()
        self._save()
        if tell:
            tell(self._progress(rows.count, rows.count))
        gone = self._gone(unseen=rows.passed_over[UNREADABLE_FOLDER])
        store.remove(gone)
        store.tidy(ann_from)
        if self._states is not None:
            self._states.keep({picture.sum for picture in store.pictures()})
        store.write_header({**store.header(), "whole": True})
        return IndexReport(
            total=rows.count,
            removed=len(gone),
            unreadable=tuple(self._unreadable),
            passed_over=dict(sorted((+rows.passed_over).items())),
            ann=store.has_ann(),
            **self._counts,
        )

    def _gone(self, unseen):
        """Find the ids of the pictures to delete from the index.

        Args:
            unseen: int, folders of the source that could not be read.
        """
        is_below = below(self._source)
        # Files that were moved here, even by an interrupted run.
        kept = {self._content(self._known[id]) for id in self._kept}

        def leaves(picture):
            own = picture.source == self._source or (
                # Of another folder, which this one contains.
                picture.source == picture.folder and is_below(picture)
            )
            # An unreadable folder may still contain its pictures.
            if picture.id in self._refused or (own and not unseen):
                return True
            moved = self._content(picture) in kept
            return (own or moved) and file_is_gone(picture.file)

        return [
            p.id
            for p in self._known.values()
            if p.id not in self._present and leaves(p)
        ]

    def _take(self, read):
        """Process the next `ReadPicture`."""
        id, error = read.stored.id, read.error
        if error is None and id in self._present:
            error = "the source has the same row before"
        if error is not None:
            self._refuse(read, error)
            return
        self._present.add(id)
        if read.equal is not None:
            self._copies.append(read)
            if len(self._copies) == self._save_every:
                self._copy()
        elif read.image is None:
            self._kept.add(id)
            self._counts["unchanged"] += 1
        else:
            self._read.append(read)
            together = min(_TOGETHER, self._save_every)
            if len(self._read) >= max(self._batch_size, together):
                self._embed()

    def _embed(self):
        some, self._read = self._read, []
        pairs = []
        found = each_or_refused(self._vectors, some, lambda error: error)
        for read, vector in zip(some, found, strict=True):
            if isinstance(vector, ValueError):
                self._present.discard(read.stored.id)
                self._refuse(read, str(vector))
            else:
                pairs.append((read.stored, vector))
        self._counts["embedded"] += len(pairs)
        self._add(pairs)

    def _copy(self):
        some, self._copies = self._copies, []
        found = self._store.vectors([read.equal for read in some])
        copies = []
        for read in some:
            sum_now, vector = found.get(read.equal, (None, None))
            if sum_now == read.stored.sum:
                self._kept.add(read.equal)
                copies.append((read.stored, vector))
            else:
                # This run has changed the content of the equal picture.
                self._present.remove(read.stored.id)
                self._take(self._opened(read.stored, always=True))
        self._counts["copied"] += len(copies)
        self._add(copies)

    def _add(self, pairs):
        self._unsaved += pairs
        waited = time.monotonic() - self._saved > _WAIT
        if len(self._unsaved) >= self._save_every or waited:
            self._save()

    def _save(self):
        if self._unsaved:
            pictures, vectors = zip(*self._unsaved, strict=True)
            self._store.put(list(pictures), np.stack(vectors))
        self._unsaved = []
        self._saved = time.monotonic()

    def _progress(self, done, total):
        unreadable = len(self._unreadable)
        return IndexProgress(done, total, unreadable=unreadable, **self._counts)

    def _vectors(self, some):
        images = [read.image for read in some]
        if self._states is not None:
            images = self._models.image_states(images, self._batch_size)
            # Before the pictures: what has no picture is deleted at the end.
            sums = [read.stored.sum for read in some]
            self._states.add(sums, images.read())
        inputs = {"images": images}
        if self._fused:
            inputs["texts"] = [read.stored.text for read in some]
        return list(self._models.embed(self._batch_size, **inputs))

    def _refuse(self, read, error):
        self._refused.add(read.stored.id)
        self._unreadable.append(UnreadablePicture(read.stored.path, error))

    def _opened_row(self, row):
        stored = self._stored(row)
        if row.error:
            return ReadPicture(stored, error=row.error)
        return self._opened(stored)

    def _opened(self, stored, always=False):
        """Read the file of a `StoredPicture`, and its pixels if needed.

        Args:
            stored: `StoredPicture`, without the sum of its file.
            always: bool, True to decode it whatever the index holds.

        Returns:
            `ReadPicture`.
        """
        try:
            stored.path.encode()
            path = pathlib.Path(stored.file)
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                stored = dataclasses.replace(stored, sum=digest)
                lacks = self._states and digest not in self._states.known
                if not (always or lacks):
                    known = self._known.get(stored.id)
                    if known and known.sum == digest:
                        return ReadPicture(stored)
                    if equal := self._equal.get(self._content(stored)):
                        return ReadPicture(stored, equal=equal)
                file.seek(0)
                image = open_file(file, path, "image")
                square = as_square(image, self._square, "image")
                return ReadPicture(stored, square)
        except (OSError, ValueError) as error:
            return ReadPicture(stored, error=str(error))

    def _stored(self, row):
        named = [row.values.get(n, "") for n in ("image", ID, "text")]
        path, name, text = (x if isinstance(x, str) else "" for x in named)
        folder = full_path(row.folder)
        if folder == self._source:
            # Overlapping folders share their pictures.
            named = [os.path.join(self._real, path)]
        else:
            named = [self._source, path, name, text]
        return StoredPicture(
            id=_uuid(*named),
            sum="",
            source=self._source,
            folder=folder,
            path=path or f"row {row.number}",
            name=name,
            text=text,
        )


def _uuid(*parts):
    """Return a UUID computed from texts."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape"))
    return str(uuid.UUID(bytes=digest.digest()[:16]))
