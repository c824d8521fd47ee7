"""*Ask*: answers to a question, and what in the picture speaks for the best."""

import dataclasses

from keras_bridgetower.analysis import relevance
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.overlays import overlay

_ANSWERS = 5


@dataclasses.dataclass(frozen=True)
class Answered:
    """Answers to a question.

    Args:
        answers: list of `(answer, score)`, the best first, scores in 0..1.
        looked: `PIL.Image.Image`, what in the picture speaks for the best.
    """

    answers: list
    looked: object


def ask(opened, image, question, preset):
    """Answer a question about a picture.

    Args:
        opened: `DemoModels`.
        image: a picture.
        question: str.
        preset: str.

    Returns:
        `Answered`.
    """
    task = opened.open(preset, models.ASK)
    answers = task.answer(
        image, question, top_k=min(_ANSWERS, len(task.answers))
    )
    seen = relevance(task, image, question, answers[0][0])
    return Answered(answers, overlay(seen.pictures[0], seen.whole[0]))
