"""Commands that ask a model about a picture or two."""

from typing import Annotated

import typer

from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import Asked
from keras_bridgetower.apps.cli.models import Picture
from keras_bridgetower.apps.cli.models import preset_option

ASK = Asked("answer", "BridgeTowerVQA", ("vqa",))
FILL = Asked("fill_mask", "BridgeTowerMaskedLM", ("mlm",))
ENTAIL = Asked("entail", "BridgeTowerEntailment", ("entailment",))
COMPARE = Asked("compare", "BridgeTowerNLVR2", ("nlvr2",))
TopK = Annotated[int, typer.Option(min=1, help="How many to print.")]


def ask(
    context: typer.Context,
    picture: Picture,
    question: Annotated[
        str, typer.Argument(help="Question about the picture.")
    ],
    preset: preset_option(True) = ASK.default,
    top_k: TopK = 1,
    as_json: AsJson = False,
):
    """Answer a question about a picture.

    Prints the best answers and their scores, from 0 to 1.
    """
    (image,) = models.open_pictures(picture)
    task = models.open_task(ASK, preset, context)
    found = task.answer(image, question, top_k=top_k)
    answers = [{"answer": answer, "score": score} for answer, score in found]
    value = {"picture": str(picture), "question": question, "preset": preset}
    output.show(
        as_json, {**value, "answers": answers}, ("answer", "score"), found
    )


def fill(
    context: typer.Context,
    picture: Picture,
    text: Annotated[
        str, typer.Argument(help="Text about the picture, with <mask> in it.")
    ],
    preset: preset_option(True) = FILL.default,
    top_k: TopK = 3,
    as_json: AsJson = False,
):
    """Fill each <mask> of a text by looking at a picture.

    Prints the best tokens of each <mask> and their probabilities, then the
    text with the best ones.
    """
    (image,) = models.open_pictures(picture)
    task = models.open_task(FILL, preset, context)
    masks, filled = task.fill_mask(image, text, top_k=top_k)
    value = {
        "picture": str(picture),
        "text": text,
        "preset": preset,
        "masks": [
            [{"token": token, "probability": share} for token, share in tokens]
            for tokens in masks
        ],
        "filled": filled,
    }
    rows = [
        (f"mask {number}", token.strip(), share)
        for number, tokens in enumerate(masks, 1)
        for token, share in tokens
    ]
    rows.append(("text", filled, None))
    output.show(as_json, value, ("where", "token", "probability"), rows)


def entail(
    context: typer.Context,
    picture: Picture,
    hypothesis: Annotated[
        str, typer.Argument(help="Sentence that may be true of the picture.")
    ],
    preset: preset_option(True) = ENTAIL.default,
    as_json: AsJson = False,
):
    """Say if a picture supports a sentence, contradicts it, or neither.

    Prints the label and the probabilities of all labels. The default preset
    was trained on pictures of one colored shape.
    """
    (image,) = models.open_pictures(picture)
    task = models.open_task(ENTAIL, preset, context)
    label, probabilities = task.entail(image, hypothesis)
    value = {
        "picture": str(picture),
        "hypothesis": hypothesis,
        "preset": preset,
        "label": label,
        "probabilities": probabilities,
    }
    rows = sorted(probabilities.items(), key=lambda pair: -pair[1])
    output.show(as_json, value, ("label", "probability"), rows)


def compare(
    context: typer.Context,
    left: Picture,
    right: Picture,
    statement: Annotated[
        str, typer.Argument(help="Statement about the two pictures.")
    ],
    preset: preset_option(True) = COMPARE.default,
    as_json: AsJson = False,
):
    """Say if a statement about two pictures is true.

    Prints the judgment and how probable it is. The default preset was trained
    on pictures of one colored shape.
    """
    images = models.open_pictures(left, right)
    task = models.open_task(COMPARE, preset, context)
    true, probability = task.compare(*images, statement)
    value = {
        "left": str(left),
        "right": str(right),
        "statement": statement,
        "preset": preset,
        "true": true,
        "probability": probability,
    }
    rows = [("true" if true else "false", probability)]
    output.show(as_json, value, ("statement is", "probability"), rows)
