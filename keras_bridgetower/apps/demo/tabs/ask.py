"""The tab *Ask*: answers to a question, and a map of the attention."""

from keras_bridgetower.analysis import relevance
from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import checked_text
from keras_bridgetower.presets.verbs import ANSWER
from keras_bridgetower.presets.verbs import UNKNOWN

TITLE = "Ask"
VERBS = (ANSWER,)
_ANSWERS = 5
_SCORES = (
    "The model scores each answer on its own, from 0 to 100 %. Several can be "
    "right, so the scores do not add up to 100 %."
)


def ask(models, image, question, preset):
    """Answer a question about a picture by a preset of `DemoModels`.

    Returns:
        `Answers`; and a `PIL.Image.Image` of the regions that support the best
        one, or None if the preset merges tokens of pictures.
    """
    task = models.open(preset, *VERBS)
    top_k = min(_ANSWERS, len(task.answers))
    answers = task.answer(image, question, top_k=top_k)
    if task.backbone.fusion.image_tokens is not None:
        return answers, None
    found = relevance(task, image, question, answers[0][0])
    return answers, fragments.overlay(found.pictures[0], found.whole[0])


def shown(answers):
    """Render `Answers`: those that are not known without a heading."""
    if answers.known is not False:
        return fragments.answer(answers[0][0], answers, _SCORES)
    title = fragments.label("I do not know. These are guesses:")
    return title + fragments.bars(answers) + fragments.small(UNKNOWN)


def add(parts):
    with parts.about_picture(
        "Ask a question about a picture",
        "The model answers, says how sure it is, and shows where it looked.",
        parts.samples["ask"],
        "Question",
        "Ask",
        VERBS,
    ) as (answers, _):
        answer = parts.result("The answer appears here.")
        title, looked = parts.looked("Where it looked (orange)")

    def run(value, question, preset):
        question = checked_text(question, "question")
        image = parts.image(value)
        answers, picture = ask(parts.models, image, question, preset)
        where = f"Where it looked (orange): “{question}” – “{answers[0][0]}”"
        return shown(answers), fragments.label(where), picture

    answers(run, [answer, title, looked])
