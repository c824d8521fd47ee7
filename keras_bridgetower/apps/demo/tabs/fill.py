"""The tab *Fill the blank*: a picture and a sentence with a blank."""

from keras_bridgetower.apps.demo import filling
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.inputs import with_blanks

TITLE = "Fill the blank"
KINDS = (models.FILL,)
_EXAMPLES = (
    ("apple", "a ___ apple"),
    ("umbrella", "this is an ___"),
    ("dog", "this is an ___"),
    ("cake", "a drawing of a ___"),
)
_SCORES = (
    "The most likely words. With all other words of the vocabulary they add "
    "up to 100 %."
)


def add(parts):
    """Put the tab's content on the page.

    Args:
        parts: `Parts`.
    """
    gr = parts.gr
    parts.intro(
        "Fill the blank in a sentence",
        "Write `___` for a missing word. The model finds it by looking at the "
        "picture.",
    )
    rows = [parts.drawn_example(*example) for example in _EXAMPLES]
    examples = parts.examples(rows)
    with gr.Row():
        box, text, button, preset = parts.picture_and_text(
            "Sentence with ___",
            "a ___ apple",
            "Fill the blank",
            KINDS,
        )
        with gr.Column(min_width=280):
            filled = parts.result("The full sentence appears here.")

    def run(value, sentence, preset):
        sentence = with_blanks(sentence, parts.limits)
        image = parts.image(value)
        found = filling.fill(parts.opened, image, sentence, preset)
        return fragments.filled(found.words, found.parts, _SCORES)

    parts.answers(
        [button.click, text.submit],
        examples,
        [box, text],
        run,
        [box, text, preset],
        [filled],
    )
