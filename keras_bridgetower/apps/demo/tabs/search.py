"""The tab *Search*: finds pictures by a text, in an index that is kept."""

import collections
import dataclasses
import json
import os
import pathlib
import tempfile
import threading

from PIL import Image

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.inputs import checked_text
from keras_bridgetower.apps.demo.inputs import uploaded_paths
from keras_bridgetower.apps.demo.tabs.parts import Example
from keras_bridgetower.apps.predict.rows import picture_files
from keras_bridgetower.apps.search.picture_search import PictureSearch
from keras_bridgetower.preprocessing.images import open_image

TITLE = "Search"
VERBS = (models.SEARCH,)
_EXAMPLES = (
    "something sweet",
    "an animal that lives in the sea",
    "music",
    "it flies to the moon",
)
_THUMBNAIL = (384, 384)
# Pictures per batch while an index is built.
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Found:
    """Result of a search.

    Args:
        hits: list of `(picture, hit)`, the best first: a small
            `PIL.Image.Image` and the `Hit` of the search.
        good: int, how many of them come before the largest drop of the score.
        searched: int, number of pictures.
        unreadable: list of str, names of files that are not pictures.
    """

    hits: list
    good: int
    searched: int
    unreadable: list


def hit_score(hit):
    """Return the score that orders hits, of the matching head if it ran."""
    return hit.similarity if hit.match is None else hit.match


def largest_drop(scores):
    """Return how many scores, best first, come before the largest drop.

    No fixed score separates good from bad: it depends on the model and the
    text. Without two different scores all are good.
    """
    drops = [a - b for a, b in zip(scores, scores[1:], strict=False)]
    if not drops or max(drops) <= 0:
        return len(scores)
    return 1 + drops.index(max(drops))


class IndexShelf:
    """Indexes of pictures, kept while the page runs.

    Args:
        opened: `DemoModels`.
    """

    def __init__(self, opened):
        self._opened = opened
        self._folder = tempfile.TemporaryDirectory(prefix="bridgetower-")
        self._kept = {}
        self._lock = threading.Lock()

    def find(self, source, text, preset, progress=None):
        """Find the pictures of a source that fit a text.

        Args:
            source: path of a folder, or tuple of paths of pictures.
            text: str.
            preset: str.
            progress: callable of an `IndexProgress`, or None.

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
                progress=progress,
            )
            if report.total == len(report.unreadable):
                raise RefusedInput("None of these files is a picture.")
            # One more, to see if the score drops after the last.
            most = self._opened.limits.hits
            hits = kept.search.query(text, top_k=most + 1)
        hits = [
            (picture, hit)
            for hit in hits
            if hit.problem is None and (picture := _thumbnail(hit.path))
        ]
        good = largest_drop([hit_score(hit) for _, hit in hits])
        unreadable = [pathlib.Path(bad.path).name for bad in report.unreadable]
        return Found(
            hits[:most], good, report.total - len(unreadable), unreadable
        )

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
            # The most recently used is the last.
            self._kept[key] = kept
            extra = len(self._kept) - self._opened.limits.indexes
            for old in list(self._kept)[: max(extra, 0)]:
                # Keep one that is in use.
                lock = self._kept[old].lock
                if lock.acquire(blocking=False):
                    self._kept.pop(old).search.close()
                    lock.release()
            return kept


class _Kept:
    """An index, its folder, and its lock."""

    def __init__(self, folder, searched):
        self.folder = folder
        self.search = PictureSearch(folder / "index", searched)
        self.lock = threading.Lock()


def _listed(source, place):
    """Return the folder, or a table of the uploaded pictures."""
    if isinstance(source, str):
        if not any(picture_files(source, collections.Counter())):
            raise RefusedInput(f"There are no pictures in “{source}”.")
        return source
    table = place / "pictures.jsonl"
    rows = [json.dumps({"image": path}) for path in source]
    table.write_text("\n".join(rows) + "\n")
    return table


def _thumbnail(path):
    """Return a thumbnail of a file, or None if it can no longer be read."""
    try:
        picture = open_image(path)
    except ValueError:
        return None
    picture.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    return picture


def add(parts):
    """Add the tab's content to the page."""
    gr, limits = parts.gr, parts.limits
    parts.intro(
        "Find pictures by a text",
        "Describe what you look for. The best picture comes first.",
    )
    examples = parts.examples([Example(w, (w,)) for w in _EXAMPLES])
    with gr.Row():
        with gr.Column(min_width=280):
            text = gr.Textbox(
                label="What do you look for?", placeholder=_EXAMPLES[0]
            )
            button = gr.Button("Search", variant="primary")
            boxes = parts.pictures("Pictures to search", parts.drawn)
            folder = gr.Textbox(
                label="Or a folder of pictures on this computer",
                placeholder="/home/me/pictures",
                visible=parts.local,
            )
            preset = parts.preset(VERBS)
        with gr.Column(min_width=280):
            summary = parts.result("The result appears here.")
            gallery = gr.Gallery(
                label="Found, the best first",
                show_label=False,
                height=None,
                elem_classes=["kb-gallery", "kb-found"],
                object_fit="contain",
                interactive=False,
                format="png",
                buttons=["fullscreen"],
            )

    progress = gr.Progress()

    def run(values, folder, words, preset, progress=progress):
        words = checked_text(words, "text", limits)
        source = _source(values, folder, parts)
        found = parts.shelf.find(
            source,
            words,
            preset,
            lambda p: progress((p.done, p.total), desc="Reading pictures"),
        )
        captions = [
            (picture, _caption(place, hit, found.good))
            for place, (picture, hit) in enumerate(found.hits, 1)
        ]
        return fragments.found(**vars(found)), captions

    parts.answers(
        [button.click, text.submit],
        examples,
        [text],
        run,
        [boxes, folder, text, preset],
        [summary, gallery],
    )


def _caption(place, hit, good):
    weaker = "" if place <= good else " · weaker"
    name = pathlib.Path(hit.path).stem
    return f"{place}. {name} · {hit_score(hit):.2f}{weaker}"


def _source(values, folder, parts):
    folder = folder.strip() if isinstance(folder, str) else ""
    if not (folder and parts.local):
        return tuple(uploaded_paths(values, parts.limits.searched))
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise RefusedInput(f"There is no folder “{folder}” on this computer.")
    return folder
