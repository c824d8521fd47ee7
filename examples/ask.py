"""Title: Ask a picture, and see where the model looks
Author: the keras_bridgetower maintainers
Date: 2026-11-29
Description: A trained model answers questions about photographs if the photo
    presets are installed, else about drawings. The figure shows which patches
    and words its first cross-modal layer attends to.
Accelerator: none; half a minute on one CPU core

    python examples/ask.py

Runs offline. `keras-bridgetower ask` asks about a picture of yours.
"""

import example

import keras_bridgetower as kbt


def main():
    arguments = example.parser(__file__, __doc__).parse_args()
    preset = kbt.default_family() + "vqa"
    print(f"asking {preset}")
    vqa = kbt.BridgeTowerVQA.from_preset(preset)
    pairs = kbt.first_examples()["ask"]
    answers = vqa.answer(
        [image for image, _ in pairs],
        [question for _, question in pairs],
        top_k=3,
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
