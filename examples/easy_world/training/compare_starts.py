r"""Measure whether pre-training helps VQA, with the tiny preset.

    PYTHONPATH=examples KERAS_BACKEND=torch python -m \
        easy_world.training.compare_starts --steps 300 --seeds 0 1

The runs of a seed have the same architecture, data, order and number of
steps; they differ in the weights that they start from. Prints a table of
validation scores (pictures 3500-3999) beside the blind one.
"""

import argparse
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_bridgetower as kbt
from easy_world import pictures
from easy_world.training.tiny_training import compile_for
from easy_world.training.train_tiny import raw_dataset
from easy_world.training.train_tiny import rows_dataset

# Whether weights are loaded, and whether the poolers start anew.
STARTS = {
    "random": (False, False),
    "pre-trained": (True, False),
    "pre-trained, new poolers": (True, True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="bridgetower_tiny_easy_pretrain")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    settings = parser.parse_args()
    train, validation = map(pictures.load, ("train", "validation"))
    print("| start | validation scores by seed | mean |\n|---|---|---|")
    for name, start in STARTS.items():
        scores = [
            100 * score_of(start, seed, train, validation, settings)
            for seed in settings.seeds
        ]
        shown = ", ".join(f"{score:.1f}" for score in scores)
        print(f"| {name} | {shown} | {np.mean(scores):.1f} |", flush=True)
    print(f"blind, on test: {pictures.BLIND_TEST_SCORES['overall']}")


def score_of(start, seed, train, validation, settings):
    """The validation score after the given number of steps."""
    load_weights, new_poolers = start
    keras.utils.set_random_seed(seed)
    with warnings.catch_warnings():
        # "The head is new": in both runs.
        warnings.simplefilter("ignore", UserWarning)
        vqa = kbt.BridgeTowerVQA.from_preset(
            settings.preset, load_weights, answers=pictures.answer_list()
        )
    if new_poolers:
        vqa.backbone.fusion.reset_poolers()
    questions, answers = (
        tf.constant(x) for x in (train.questions, train.answers)
    )

    def batch(rows):
        images = tf.gather(train.images, tf.gather(train.image_index, rows))
        x = {"images": images, "text": tf.gather(questions, rows)}
        return x, tf.gather(answers, rows)

    data = rows_dataset(len(train.questions), settings.batch_size, seed)
    data = data.repeat().take(settings.steps).map(batch)
    compile_for(vqa, settings.steps, settings.learning_rate)
    vqa.fit(data, verbose=2)
    found = vqa.evaluate(raw_dataset(validation), verbose=0, return_dict=True)
    return found["vqa_score"]


if __name__ == "__main__":
    main()
