r"""Train the preset `bridgetower_tiny_easy_vqa` from scratch.

First the image tower learns to name shape and color of the training pictures,
then the whole model learns to answer. The epoch is chosen on the validation
pictures; the test split is read once, at the end.

    PYTHONPATH=examples KERAS_BACKEND=jax python -m \
        easy_world.training.train_tiny runs/tiny
"""

import argparse
import json
import pathlib
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import keras_bridgetower as kbt
from easy_world import pictures
from easy_world.training import tiny_training

NAME = "bridgetower_tiny_easy_vqa"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=pathlib.Path, help="new preset folder")
    parser.add_argument("--tower-epochs", type=int, default=50)
    parser.add_argument("--tower-batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    keras.utils.set_random_seed(settings.seed)
    started = time.time()
    train, validation = map(pictures.load, ("train", "validation"))
    shown = [pictures.attributes(image) for image in train.images]
    boxes = np.array([one.box for one in shown], "int32")
    vqa = build(train.questions)
    print(f"{vqa.count_params():,} parameters")
    accuracy = train_image_tower(vqa, train.images, boxes, shown, settings)
    history = train_vqa(vqa, train, validation, boxes, settings)
    values = {k: v for k, v in vars(settings).items() if k != "output"}
    record = {
        "backend": keras.config.backend(),
        "settings": values,
        "seconds": round(time.time() - started),
        "image_tower_accuracy": accuracy,
        "validation_score": history,
        "test_scores": scores(vqa, pictures.load("test")),
        "blind_test_scores": pictures.BLIND_TEST_SCORES,
        "note": "",
    }
    text = tiny_training.page(
        __file__, NAME, vqa, record, settings=json.dumps(values)
    )
    tiny_training.save(vqa, settings.output, record, text)
    print(json.dumps(record, indent=2))


def build(questions):
    vocabulary, merges = tiny_training.learn_vocabulary(questions)
    backbone = tiny_training.build_backbone(
        len(vocabulary), image_layers=4, text_layers=3, layers=3
    )
    preprocessor = kbt.BridgeTowerVQAPreprocessor(
        kbt.BridgeTowerTokenizer(vocabulary, merges, sequence_length=16),
        kbt.BridgeTowerImageConverter(tiny_training.SIDE, mode="squash"),
        answers=pictures.answer_list(),
    )
    return kbt.BridgeTowerVQA(backbone, preprocessor)


def train_image_tower(vqa, images, boxes, shown, settings):
    """Let the image tower name shape and color; return the accuracies."""
    words = {"shape": pictures.SHAPES, "colour": tuple(pictures.COLOURS)}
    labels = {
        name: [known.index(getattr(one, name)) for one in shown]
        for name, known in words.items()
    }

    def batch(rows):
        shifted = pictures.shift(
            tf.gather(images, rows), tf.gather(boxes, rows)
        )
        return shifted, {n: tf.gather(ids, rows) for n, ids in labels.items()}

    data = rows_dataset(len(images), settings.tower_batch_size, settings.seed)
    return tiny_training.fit_image_tower(
        vqa,
        {name: len(known) for name, known in words.items()},
        data.map(batch, num_parallel_calls=2),
        settings.tower_epochs,
        len(data),
        settings.learning_rate,
    )


def train_vqa(vqa, train, validation, boxes, settings):
    images, index = train.images, train.image_index
    questions = tf.constant(train.questions)
    answers = tf.constant(train.answers)

    def batch(rows):
        shown = tf.gather(index, rows)
        shifted = pictures.shift(
            tf.gather(images, shown), tf.gather(boxes, shown)
        )
        x = {"images": shifted, "text": tf.gather(questions, rows)}
        return x, tf.gather(answers, rows)

    data = rows_dataset(len(questions), settings.batch_size, settings.seed)
    tiny_training.compile_for(
        vqa, settings.epochs * len(data), settings.learning_rate
    )
    with tempfile.TemporaryDirectory() as folder:
        best = pathlib.Path(folder) / "best.weights.h5"
        keep_best = keras.callbacks.ModelCheckpoint(
            best,
            monitor="val_vqa_score",
            mode="max",
            save_best_only=True,
            save_weights_only=True,
        )
        history = vqa.fit(
            data.map(batch, num_parallel_calls=2),
            validation_data=raw_dataset(validation),
            epochs=settings.epochs,
            verbose=2,
            callbacks=[keep_best],
        ).history
        vqa.load_weights(best)
    return [round(score, 5) for score in history["val_vqa_score"]]


def rows_dataset(count, batch_size, seed):
    rows = tf.data.Dataset.range(count).shuffle(count, seed=seed)
    return rows.batch(batch_size, drop_remainder=True)


def raw_dataset(split, batch_size=256):
    rows = tf.data.Dataset.from_tensor_slices(
        (split.image_index, split.questions, split.answers)
    )
    return rows.batch(batch_size).map(
        lambda index, questions, answers: (
            {"images": tf.gather(split.images, index), "text": questions},
            answers,
        )
    )


def scores(vqa, split):
    logits = vqa.predict(raw_dataset(split).map(lambda x, y: x), verbose=0)
    right = np.array(vqa.answers)[logits.argmax(-1)] == split.answers
    kinds = np.array([pictures.question_kind(a) for a in split.answers])
    result = {"overall": right.mean()}
    for kind in ("yes/no", "shape", "colour"):
        result[kind] = right[kinds == kind].mean()
    return {name: round(100 * float(v), 2) for name, v in result.items()}


if __name__ == "__main__":
    main()
