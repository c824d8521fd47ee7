"""The tab *Ask*: a picture and a question become answers."""

from keras_bridgetower.apps.demo import asking
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.inputs import checked_text

TITLE = "Ask"
KINDS = (models.ASK,)
_EXAMPLES = (
    ("octopus", "what kind of thing is it?"),
    ("strawberry", "what color is it mostly?"),
    ("guitar", "is this a musical instrument?"),
    ("cake", "which group does it belong to?"),
)
_SCORES = (
    "The model scores each answer on its own, from 0 to 100 %. Several can be "
    "right, so the scores do not add up to 100 %."
)


def add(parts):
    """Put the tab's content on the page.

    Args:
        parts: `Parts`.
    """
    gr = parts.gr
    parts.intro(
        "Ask a question about a picture",
        "The model answers, says how sure it is, and shows where it looked.",
    )
    rows = [parts.drawn_example(*example) for example in _EXAMPLES]
    examples = parts.examples(rows)
    with gr.Row():
        box, text, button, preset = parts.picture_and_text(
            "Question", "what kind of thing is it?", "Ask", KINDS
        )
        with gr.Column(min_width=280):
            answer = parts.result("The answer appears here.")
            title, looked = parts.looked("Where it looked (orange)")

    def run(value, question, preset):
        question = checked_text(question, "question", parts.limits)
        image = parts.image(value)
        found = asking.ask(parts.opened, image, question, preset)
        best = found.answers[0][0]
        where = f"Where it looked (orange): “{question}” – “{best}”"
        shown = fragments.answer(best, found.answers, _SCORES)
        return shown, fragments.label(where), found.looked

    parts.answers(
        [button.click, text.submit],
        examples,
        [box, text],
        run,
        [box, text, preset],
        [answer, title, looked],
    )
