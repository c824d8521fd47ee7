"""*Search*: finds pictures by a text, in an index that is kept."""

import dataclasses
import json
import pathlib
import tempfile
import threading

from PIL import Image

from keras_bridgetower.demo import models
from keras_bridgetower.demo.inputs import RefusedInput
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.search.picture_search import PictureSearch

_THUMBNAIL = (384, 384)
# Pictures of a forward pass while an index is made.
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Found:
    """Pictures that a search found.

    Args:
        hits: list of `(picture, hit)`, the best first: a small
            `PIL.Image.Image` and the `Hit` of the search.
        searched: int, pictures that were searched.
        unreadable: list of str, names of files that are no pictures.
    """

    hits: list
    searched: int
    unreadable: list


class IndexShelf:
    """Indexes of pictures, kept for as long as the page runs.

    Args:
        opened: `DemoModels`.
    """

    def __init__(self, opened):
        self._opened = opened
        self._folder = tempfile.TemporaryDirectory(prefix="bridgetower-")
        self._kept = {}
        self._made = 0
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
        searched = self._opened.open(preset, models.SEARCH)
        # One at a time: two searches of the same pictures share an index.
        with self._lock:
            search, report = self._index(source, preset, searched, tell)
        limit = self._opened.limits.hits
        hits = [
            (_thumbnail(hit.path), hit)
            for hit in search.query(text, top_k=limit)
            if hit.problem is None
        ]
        unreadable = [pathlib.Path(bad.path).name for bad in report.unreadable]
        return Found(hits, report.total - len(unreadable), unreadable)

    def close(self):
        """Delete the indexes."""
        with self._lock:
            while self._kept:
                self._drop()
            self._folder.cleanup()

    def _index(self, source, preset, searched, tell):
        key = source, preset
        kept = self._kept.pop(key, None)
        if kept is None:
            self._made += 1
            place = pathlib.Path(self._folder.name, str(self._made))
            place.mkdir()
            kept = PictureSearch(place / "index", searched), place
        self._kept[key] = kept
        while len(self._kept) > self._opened.limits.indexes:
            self._drop()
        search, place = kept
        # What has not changed is not embedded again.
        report = search.index(
            _listed(source, place),
            batch_size=_BATCH,
            outside=True,
            progress=tell,
        )
        if not report.total - len(report.unreadable):
            raise RefusedInput("None of these files is a picture.")
        return search, report

    def _drop(self):
        search, _ = self._kept.pop(next(iter(self._kept)))
        search.close()


def _listed(source, place):
    """A folder, or a table of the pictures that were uploaded."""
    if isinstance(source, str):
        return source
    table = place / "pictures.jsonl"
    rows = [json.dumps({"image": path}) for path in source]
    table.write_text("\n".join(rows) + "\n")
    return table


def _thumbnail(path):
    picture = open_image(path)
    picture.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    return picture
