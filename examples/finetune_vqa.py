"""Title: Teach a model a question that it has never seen
Author: the keras_bridgetower maintainers
Date: 2026-11-24
Description: A preset that knows shapes and colours learns to say how big the
    shape is, with three new answers and a new head. Raw pictures and strings
    go into `fit`.
Accelerator: none; one minute on one CPU core

    python examples/finetune_vqa.py

Runs offline; needs `pip install easy-vqa matplotlib`.
"""

import collections
import warnings

import example
import keras
import numpy as np
import tensorflow as tf
from easy_world import pictures

import keras_bridgetower as kbt

ANSWERS = ["small", "medium", "large"]
QUESTIONS = ["how big is the shape?", "what size is the shape?"]


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    train = dataset("train", arguments.pictures, arguments.seed)
    validation = dataset("validation")
    test, sizes = dataset("test"), labels(pictures.load("test").images)

    with warnings.catch_warnings():
        # The head is newly initialized, which is intended here.
        warnings.simplefilter("ignore", UserWarning)
        vqa = kbt.BridgeTowerVQA.from_preset(
            "bridgetower_tiny_easy_vqa", answers=ANSWERS
        )
    vqa.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0))
    history = vqa.fit(
        train, validation_data=validation, epochs=arguments.epochs
    ).history

    score = vqa.evaluate(test, verbose=0, return_dict=True)["vqa_score"]
    majority = collections.Counter(sizes).most_common(1)[0][1] / len(sizes)
    print(
        f"test: {100 * score:.1f} % right (always the most frequent size: "
        f"{100 * majority:.1f} %), 1,000 pictures, seed {arguments.seed}"
    )
    images = pictures.load("test").images[:6]
    print("one picture:", vqa.answer(images[0], QUESTIONS[0], top_k=3))
    example.save(
        learned(
            history["val_vqa_score"],
            majority,
            images,
            vqa.answer(list(images), QUESTIONS[0]),
            sizes,
        ),
        arguments.output,
        "learned.png",
        "the validation score of each epoch, and answers to test pictures",
    )


def learned(scores, blind, images, answers, truth):
    figure = example.new_figure(9, 5.4)
    above, below = figure.subfigures(2, 1, height_ratios=(1.4, 1))
    axes = above.subplots()
    epochs = range(1, len(scores) + 1)
    axes.plot(epochs, 100 * np.array(scores), "o-", label="validation")
    axes.axhline(100 * blind, color="#666666", ls="--", label="blind, on test")
    axes.set(xlabel="epoch", ylabel="right answers, %", ylim=(0, 102))
    axes.set_xticks(epochs)
    axes.set_title("It learns to say how big the shape is")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    places = below.subplots(1, len(images))
    for place, image, ranked, size in zip(
        *(places, images, answers, truth[: len(images)]), strict=True
    ):
        ((answer, score),) = ranked
        place.imshow(image)
        place.set_xticks([])
        place.set_yticks([])
        color = "black" if answer == size else "#c04000"
        place.set_xlabel(f"{answer} {score:.2f}\nis: {size}", color=color)
    return figure


def dataset(split, count=None, seed=None):
    """Raw batches: {"images", "text"} and the answer as a string."""
    images = pictures.load(split).images[:count]
    questions = [QUESTIONS[i % len(QUESTIONS)] for i in range(len(images))]
    rows = tf.data.Dataset.from_tensor_slices(
        ({"images": images, "text": questions}, labels(images))
    )
    if seed is not None:
        rows = rows.shuffle(len(images), seed=seed)
    return rows.batch(50)


def labels(images):
    """small below 16 pixels, large from 24 on: the longer side of the box."""
    sides = []
    for image in images:
        top, left, bottom, right = pictures.attributes(image).box
        sides.append(max(bottom - top, right - left))
    return [ANSWERS[i] for i in np.digitize(sides, (16, 24))]


if __name__ == "__main__":
    main()
