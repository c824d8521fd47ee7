"""Title: Ask a picture, and see where the model looks
Author: the keras_bridgetower maintainers
Date: 2026-11-24
Description: A trained model answers three questions about two drawings. The
    figure shows which patches and words its first cross-modal layer attends to.
Accelerator: none; half a minute on one CPU core

    python examples/ask.py
    python examples/ask.py --image photo.png --question "is it a bird?"

Without arguments it asks about drawings of emoji. Runs offline.
"""

import pathlib

import example

import keras_bridgetower as kbt

PICTURES = pathlib.Path(__file__).parent / "drawings"
DRAWINGS = ("duck.png", "grapes.png")
QUESTIONS = (
    "what kind of thing is it?",
    "what color is it mostly?",
    "is this an animal?",
)


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--image", type=pathlib.Path)
    parser.add_argument("--question")
    parser.add_argument("--preset", default="bridgetower_tiny_emoji_vqa")
    parser.add_argument("--top-k", type=int, default=3)
    arguments = parser.parse_args()

    vqa = kbt.BridgeTowerVQA.from_preset(arguments.preset)
    shown = [PICTURES / name for name in DRAWINGS]
    images = [arguments.image] if arguments.image else shown
    questions = [arguments.question] if arguments.question else QUESTIONS
    pairs = [(image, question) for image in images for question in questions]
    answers = vqa.answer(
        [image for image, _ in pairs],
        [question for _, question in pairs],
        top_k=arguments.top_k,
    )
    for (image, question), ranked in zip(pairs, answers, strict=True):
        scores = ", ".join(f"{answer} {score:.3f}" for answer, score in ranked)
        print(f"{image.name}: {question}  ->  {scores}")

    # The first cross-modal layer, where the text meets the picture; later
    # layers attend to what is already mixed.
    image, question = pairs[0]
    seen = kbt.analysis.attention_map(vqa, image, question, layer=0)
    figure = kbt.analysis.figures.attention(seen)
    answer, score = answers[0][0]
    figure.suptitle(f"“{question}”  {answer}, {score:.3f} ({seen.title})")
    example.save(
        figure,
        arguments.output,
        "attention.png",
        f"where the answer to '{question}' looked in {image.name}",
    )


if __name__ == "__main__":
    example.timed(main)
