"""The tab *Search*: a text finds pictures among many."""

import os
import pathlib

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo import searching
from keras_bridgetower.apps.demo.examples import pictures
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.inputs import checked_text
from keras_bridgetower.apps.demo.inputs import paths_of
from keras_bridgetower.apps.demo.tabs.parts import Example

TITLE = "Search"
VERBS = (models.SEARCH,)
_EXAMPLES = (
    "something sweet",
    "an animal that lives in the sea",
    "music",
    "it flies to the moon",
)


def add(parts):
    """Put the tab's content on the page.

    Args:
        parts: `Parts`.
    """
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
            boxes = parts.pictures("Pictures to search", tuple(pictures()))
            folder = gr.Textbox(
                label="Or a folder of pictures on this computer",
                placeholder="/home/me/pictures",
                visible=parts.local,
            )
            preset = parts.preset(VERBS)
        with gr.Column(min_width=280):
            told = parts.result("What was found appears here.")
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
        [told, gallery],
    )


def _caption(place, hit, good):
    weaker = "" if place <= good else " · weaker"
    name = pathlib.Path(hit.path).stem
    return f"{place}. {name} · {searching.score_of(hit):.2f}{weaker}"


def _source(values, folder, parts):
    folder = folder.strip() if isinstance(folder, str) else ""
    if not (folder and parts.local):
        return tuple(paths_of(values, parts.limits.searched))
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise RefusedInput(f"There is no folder “{folder}” on this computer.")
    return folder
