"""*Search*: finds pictures by a text, in an index that is kept."""

import collections
import dataclasses
import json
import pathlib
import tempfile
import threading

from PIL import Image

from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.predict.rows import picture_files
from keras_bridgetower.apps.search.picture_search import PictureSearch
from keras_bridgetower.preprocessing.images import open_image

_THUMBNAIL = (384, 384)
# Pictures of a forward pass while an index is made.
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Found:
    """Pictures that a search found.

    Args:
        hits: list of `(picture, hit)`, the best first: a small
            `PIL.Image.Image` and the `Hit` of the search.
        good: int, how many of them come before the largest drop of the score.
        searched: int, pictures that were searched.
        unreadable: list of str, names of files that are no pictures.
    """

    hits: list
    good: int
    searched: int
    unreadable: list


def score_of(hit):
    """Return the number that orders hits: of the matching head, if it ran."""
    return hit.similarity if hit.match is None else hit.match


def largest_drop(scores):
    """Return how many scores, best first, come before the largest drop.

    No single score tells good from bad: what counts as high depends on the
    model and the text. Without two different scores all are good.
    """
    drops = [a - b for a, b in zip(scores, scores[1:], strict=False)]
    if not drops or max(drops) <= 0:
        return len(scores)
    return 1 + drops.index(max(drops))


class IndexShelf:
    """Indexes of pictures, kept for as long as the page runs.

    Args:
        opened: `DemoModels`.
    """

    def __init__(self, opened):
        self._opened = opened
        self._folder = tempfile.TemporaryDirectory(prefix="bridgetower-")
        self._kept = {}
        self._lock = threading.Lock()

    def find(self, source, text, preset, tell=None):
        """The pictures of a source that fit a text.

        Args:
            source: path of a folder, or tuple of paths of pictures.
            text: str.
            preset: str.
            tell: callable of an `IndexProgress`, or None.

        Returns:
            `Found`.
        """
        searched = self._opened.open_search(preset)
        kept = self._kept_index((source, preset), searched)
        # One at a time: an index has one writer.
        with kept.lock:
            report = kept.search.index(
                _listed(source, kept.folder),
                batch_size=_BATCH,
                outside=True,
                progress=tell,
            )
            if report.total == len(report.unreadable):
                raise RefusedInput("None of these files is a picture.")
            # One more, to see whether the score drops after the last.
            most = self._opened.limits.hits
            found = kept.search.query(text, top_k=most + 1)
        shown = [
            (picture, hit)
            for hit in found
            if hit.problem is None and (picture := _thumbnail(hit.path))
        ]
        good = largest_drop([score_of(hit) for _, hit in shown])
        hits = shown[:most]
        unreadable = [pathlib.Path(bad.path).name for bad in report.unreadable]
        return Found(hits, good, report.total - len(unreadable), unreadable)

    def close(self):
        """Delete the indexes."""
        with self._lock:
            for kept in self._kept.values():
                kept.search.close()
            self._kept = {}
        self._folder.cleanup()

    def _kept_index(self, key, searched):
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is None:
                folder = tempfile.mkdtemp(dir=self._folder.name)
                kept = _Kept(pathlib.Path(folder), searched)
            # The one that was asked last stands last.
            self._kept[key] = kept
            extra = len(self._kept) - self._opened.limits.indexes
            for old in list(self._kept)[: max(extra, 0)]:
                # One that is in use stays for now.
                lock = self._kept[old].lock
                if lock.acquire(blocking=False):
                    self._kept.pop(old).search.close()
                    lock.release()
            return kept


class _Kept:
    """An index, its folder, and a lock for who uses it."""

    def __init__(self, folder, searched):
        self.folder = folder
        self.search = PictureSearch(folder / "index", searched)
        self.lock = threading.Lock()


def _listed(source, place):
    """A folder, or a table of the pictures that were uploaded."""
    if isinstance(source, str):
        if not any(picture_files(source, collections.Counter())):
            raise RefusedInput(f"There are no pictures in “{source}”.")
        return source
    table = place / "pictures.jsonl"
    rows = [json.dumps({"image": path}) for path in source]
    table.write_text("\n".join(rows) + "\n")
    return table


def _thumbnail(path):
    """A small picture of a file, or None where it cannot be read any more."""
    try:
        picture = open_image(path)
    except ValueError:
        return None
    picture.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    return picture
