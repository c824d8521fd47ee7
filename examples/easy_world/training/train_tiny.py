r"""Train the tiny preset `bridgetower_tiny_easy_vqa` from scratch.

First the image tower learns to name shape and colour of the training
pictures, then the whole model learns to answer. The epoch is chosen on the
validation pictures; the test split is read once, at the end.

    PYTHONPATH=examples KERAS_BACKEND=jax python -m \
        easy_world.training.train_tiny runs/tiny
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

import keras_bridgetower as kbt
from easy_world import pictures as easy_vqa
from easy_world.training.tiny_training import SIDE
from easy_world.training.tiny_training import build_backbone
from easy_world.training.tiny_training import compile_for
from easy_world.training.tiny_training import learn_vocabulary
from keras_bridgetower.presets import manifest

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

    train = easy_vqa.load("train")
    validation = easy_vqa.load("validation")
    described = [easy_vqa.attributes(image) for image in train.images]
    boxes = np.array([a.box for a in described], "int32")

    vqa = build(train.questions)
    print(f"{vqa.count_params():,} parameters")
    tower_history = train_image_tower(
        vqa, train.images, boxes, described, settings
    )
    history = train_vqa(vqa, train, validation, boxes, settings)
    seconds = time.time() - started

    test = scores(vqa, easy_vqa.load("test"))
    record = {
        "backend": keras.config.backend(),
        "settings": {
            key: value
            for key, value in vars(settings).items()
            if key != "output"
        },
        "seconds": round(seconds),
        "image_tower_accuracy": tower_history,
        "validation_score": history,
        "test_scores": test,
        "blind_test_scores": easy_vqa.BLIND_TEST_SCORES,
        "note": "",
    }
    vqa.save_to_preset(settings.output)
    (settings.output / "training.json").write_text(
        json.dumps(record, indent=2) + "\n"
    )
    (settings.output / "README.md").write_text(readme(record, vqa))
    manifest.write(settings.output)
    print(json.dumps(record, indent=2))


def build(questions):
    """An untrained tiny model with a vocabulary of its own."""
    vocabulary, merges = learn_vocabulary(questions)
    backbone = build_backbone(
        len(vocabulary), image_layers=4, text_layers=3, layers=3
    )
    preprocessor = kbt.BridgeTowerVQAPreprocessor(
        kbt.BridgeTowerTokenizer(vocabulary, merges, sequence_length=16),
        kbt.BridgeTowerImageConverter(SIDE, mode="squash"),
        answers=easy_vqa.answer_list(),
    )
    return kbt.BridgeTowerVQA(backbone, preprocessor)


def train_image_tower(vqa, images, boxes, described, settings):
    """Let the image tower name shape and colour; returns the accuracies."""
    tower = vqa.backbone.image_tower
    converter = vqa.preprocessor.image_converter
    labels = {
        "shape": [easy_vqa.SHAPES.index(a.shape) for a in described],
        "colour": [list(easy_vqa.COLOURS).index(a.colour) for a in described],
    }
    first_token = tower(tower.input)[-1][:, 0]
    model = keras.Model(
        tower.input,
        {
            name: keras.layers.Dense(max(ids) + 1, name=name)(first_token)
            for name, ids in labels.items()
        },
    )

    def batch(rows):
        shifted = easy_vqa.shift(
            tf.gather(images, rows), tf.gather(boxes, rows)
        )
        ids = {name: tf.gather(ids, rows) for name, ids in labels.items()}
        return converter(shifted), ids

    data = rows_dataset(len(images), settings.tower_batch_size, settings.seed)
    compile_for(
        model,
        settings.tower_epochs * len(data),
        settings.learning_rate,
        loss={
            name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for name in labels
        },
        metrics={name: "accuracy" for name in labels},
    )
    history = model.fit(
        data.map(batch, num_parallel_calls=2).prefetch(4),
        epochs=settings.tower_epochs,
        shuffle=False,  # rows_dataset does it
        verbose=2,
    ).history
    return {name: round(history[f"{name}_accuracy"][-1], 4) for name in labels}


def train_vqa(vqa, train, validation, boxes, settings):
    """Plain `fit` on raw pictures and questions; the best epoch is kept."""
    images, index = train.images, train.image_index
    questions = tf.constant(train.questions)
    answers = tf.constant(train.answers)

    def batch(rows):
        pictures = tf.gather(index, rows)
        shifted = easy_vqa.shift(
            tf.gather(images, pictures), tf.gather(boxes, pictures)
        )
        x = {"images": shifted, "text": tf.gather(questions, rows)}
        return x, tf.gather(answers, rows)

    data = rows_dataset(len(questions), settings.batch_size, settings.seed)
    compile_for(vqa, settings.epochs * len(data), settings.learning_rate)
    best = f"/tmp/{NAME}-{time.time_ns()}.weights.h5"
    history = vqa.fit(
        data.map(batch, num_parallel_calls=2),
        validation_data=raw_dataset(validation),
        epochs=settings.epochs,
        shuffle=False,
        verbose=2,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                best,
                monitor="val_vqa_score",
                mode="max",
                save_best_only=True,
                save_weights_only=True,
            )
        ],
    ).history
    vqa.load_weights(best)
    pathlib.Path(best).unlink()
    return [round(score, 5) for score in history["val_vqa_score"]]


def rows_dataset(count, batch_size, seed):
    """Row numbers in a new order each epoch, in full batches."""
    rows = tf.data.Dataset.range(count).shuffle(count, seed=seed)
    return rows.batch(batch_size, drop_remainder=True)


def raw_dataset(split, batch_size=256):
    """A split as raw batches, in order."""
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
    """Accuracy in percent, overall and by kind of question."""
    logits = vqa.predict(raw_dataset(split).map(lambda x, y: x), verbose=0)
    right = np.array(vqa.answers)[logits.argmax(-1)] == split.answers
    kinds = np.array([easy_vqa.question_kind(a) for a in split.answers])
    result = {"overall": right.mean()}
    for kind in ("yes/no", "shape", "colour"):
        result[kind] = right[kinds == kind].mean()
    return {name: round(100 * float(v), 2) for name, v in result.items()}


def readme(record, vqa):
    """The preset's own page."""
    rows = "\n".join(
        f"| {kind} | {score:.2f} | "
        f"{record['blind_test_scores'].get(kind, '')} |"
        for kind, score in record["test_scores"].items()
    )
    return f"""# {NAME}

A BridgeTower of {vqa.count_params():,} parameters, trained from scratch on
easy-VQA (64 x 64 pictures of one coloured shape, 13 answers). It shows that
everything works; it knows nothing of the real world.

| questions of the official test split | % right | blind |
|---|---|---|
{rows}

Blind: the majority answer to each question, pictures unseen. Published for
this data set: CNN + LSTM 87.6 % (test).

Trained by `examples/easy_world/training/train_tiny.py` on training pictures
0-3499; the epoch was chosen on training pictures 3500-3999; the test split
was read once. Backend
{record["backend"]}, {record["seconds"]} seconds, settings
`{json.dumps(record["settings"])}`.
Validation score by epoch: {record["validation_score"]}.

{record["note"]}

Data: easy-VQA 1.0, Victor Zhou, MIT licence.
"""


if __name__ == "__main__":
    main()
