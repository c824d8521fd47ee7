"""The tab *Search*: finds pictures by a text."""

import functools
import json
import pathlib
import tempfile
import threading
import types

from PIL import Image

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import inputs
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.search.picture_search import PictureSearch
from keras_bridgetower.preprocessing.images import open_image

TITLE = "Search"
VERBS = (models.SEARCH,)
# Pictures per batch of indexing; indexes that are kept; pictures of a result.
_BATCH, _INDEXES, HITS = 16, 8, 6


def hit_score(hit):
    """Return the score of a hit: the matching head's, if it ran."""
    return hit.similarity if hit.match is None else hit.match


def largest_drop(scores):
    """Count the scores, best first, before the largest drop.

    No fixed score separates good from bad hits: scores depend on the model and
    the text. Without two different scores all are good.
    """
    drops = [a - b for a, b in zip(scores, scores[1:], strict=False)]
    if not drops or max(drops) <= 0:
        return len(scores)
    return 1 + drops.index(max(drops))


class IndexShelf:
    """Indexes of pictures, kept while the page runs."""

    def __init__(self, opened):
        self._opened = opened
        self._folder = tempfile.TemporaryDirectory(prefix="bridgetower-")
        self._kept = functools.lru_cache(_INDEXES)(self._new)

    def _new(self, paths, preset):
        searched = self._opened.open(preset, models.SEARCH)
        folder = pathlib.Path(tempfile.mkdtemp(dir=self._folder.name))
        index = PictureSearch(folder / "index", searched)
        rows = [json.dumps({"image": path}) for path in paths]
        table = folder / "pictures.jsonl"
        table.write_text("\n".join(rows) + "\n")
        return index, table, threading.Lock()

    def find(self, paths, text, preset):
        """Find the pictures that fit a text.

        Args:
            paths: tuple of str.
            text: str.
            preset: str.

        Returns:
            The arguments of `fragments.found`, as a namespace. The hits are
            pairs of a small `PIL.Image.Image` and a `Hit`.
        """
        preset = preset if isinstance(preset, str) else ""
        index, table, lock = self._kept(paths, preset)
        # One at a time: an index has one writer.
        with lock:
            report = index.index(table, batch_size=_BATCH, outside=True)
            if report.total == len(report.unreadable):
                raise inputs.RefusedInput("None of these files is a picture.")
            # One more, to see if the score drops after the last.
            hits = index.query(text, top_k=HITS + 1)
        hits = [(_thumbnail(x.path), x) for x in hits if x.problem is None]
        good = largest_drop([hit_score(hit) for _, hit in hits])
        unreadable = [pathlib.Path(bad.path).name for bad in report.unreadable]
        return types.SimpleNamespace(
            hits=hits[:HITS],
            good=good,
            searched=report.total - len(unreadable),
            unreadable=unreadable,
        )

    def close(self):
        self._folder.cleanup()


def _thumbnail(path):
    picture = open_image(path)
    picture.thumbnail((384, 384), Image.Resampling.LANCZOS)
    return picture


def add(parts):
    gr = parts.gr
    parts.intro(
        "Find pictures by a text",
        "Describe what you look for. The best picture comes first.",
    )
    texts = [text for _, text in parts.samples["search"]]
    examples = parts.examples([(text, (text,), None) for text in texts])
    with gr.Row():
        with gr.Column(min_width=280):
            text = gr.Textbox(
                label="What do you look for?", placeholder=texts[0]
            )
            button = gr.Button("Search", variant="primary")
            paths = [path for path, _ in parts.samples["pictures"]]
            boxes = parts.pictures("Pictures to search", paths)
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

    def run(values, words, preset):
        words = inputs.checked_text(words, "text")
        paths = tuple(inputs.uploaded_paths(values, inputs.SEARCHED))
        found = parts.shelf.find(paths, words, preset)
        captions = [
            (picture, _caption(place, hit, found.good))
            for place, (picture, hit) in enumerate(found.hits, 1)
        ]
        return fragments.found(**vars(found)), captions

    parts.answers(
        [button.click, text.submit],
        examples,
        [text],
        [boxes, text, preset],
        run,
        [summary, gallery],
    )


def _caption(place, hit, good):
    weaker = "" if place <= good else " · weaker"
    name = pathlib.Path(hit.path).stem
    return f"{place}. {name} · {hit_score(hit):.2f}{weaker}"
