"""Teach the tiny BridgeTower a question it has never seen.

    python examples/finetune_vqa.py

It was trained on shapes and colours; here it learns to say how big the shape
is, with three new answers and a new head. Raw pictures and strings go into
`fit`; everything else happens inside. Runs offline in about two minutes;
needs `pip install easy-vqa`.
"""

import argparse
import collections
import warnings

import keras
import numpy as np
import tensorflow as tf
from easy_world import pictures

import keras_bridgetower as kbt

ANSWERS = ["small", "medium", "large"]
QUESTIONS = ["how big is the shape?", "what size is the shape?"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    train = dataset("train", arguments.pictures, arguments.seed)
    validation = dataset("validation")
    test, sizes = dataset("test"), labels(pictures.load("test").images)

    with warnings.catch_warnings():
        # "The head is new and random": that is the point here.
        warnings.simplefilter("ignore", UserWarning)
        vqa = kbt.BridgeTowerVQA.from_preset(
            "bridgetower_tiny_easy_vqa", answers=ANSWERS
        )
    vqa.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0))
    vqa.fit(train, validation_data=validation, epochs=arguments.epochs)

    score = vqa.evaluate(test, verbose=0, return_dict=True)["vqa_score"]
    majority = collections.Counter(sizes).most_common(1)[0][1] / len(sizes)
    print(
        f"test (1,000 pictures): {100 * score:.1f} % right; blind, always the "
        f"most frequent size: {100 * majority:.1f} % (seed {arguments.seed})"
    )
    image = pictures.load("test").images[0]
    print("one picture:", vqa.answer(image, QUESTIONS[0], top_k=3))


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
