"""Train the tiny presets of all tasks.

First the image tower learns the attributes of training pictures, then the whole
model is pre-trained on captions by masked language, matching and contrast, and
each task but VQA (trained from scratch) starts from that. The last epoch is
used, none is chosen; the test split is read once for each preset, at its end.

    export KERAS_BACKEND=torch
    python -m keras_bridgetower_drawings.training.easy.train_tiny_family FOLDER
    python -m keras_bridgetower_drawings.training.easy.train_tiny_family F nlvr2
"""

import argparse
import json
import pathlib
import time
import warnings

import keras

from keras_bridgetower_drawings.training.easy import tiny_training
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from keras_bridgetower_drawings.training.easy.tiny_family import STAGES

PREFIX = "bridgetower_tiny_easy_"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="for the presets")
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    parser.add_argument("--tower-epochs", type=int, default=60)
    parser.add_argument("--tower-batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=1.0, help="a factor")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    for name in settings.stages:
        train(name, settings)


def train(name, settings):
    keras.utils.set_random_seed(settings.seed)
    started, stage = time.time(), STAGES[name]
    scenes = {split: load_scenes(split) for split in ("train", "validation")}
    record = {"backend": keras.config.backend(), "seed": settings.seed}
    if stage.start is None:
        task = stage.build(None)
        record["image_tower_accuracy"] = tiny_training.train_image_tower(
            task, scenes["train"], settings.tower_epochs, settings
        )
    else:
        with warnings.catch_warnings():
            # A new head is the point of most stages.
            warnings.simplefilter("ignore", UserWarning)
            task = stage.build(settings.folder / f"{PREFIX}{stage.start}")
    epochs = max(1, round(stage.epochs * settings.epochs))
    data, steps = tiny_training.stream(
        scenes["train"], stage.rows, epochs, stage.batch_size, settings.seed + 1
    )
    learning_rate = settings.learning_rate * stage.learning_rate
    tiny_training.compile_for(task, epochs * steps, learning_rate)
    print(f"{name}: {task.count_params():,} parameters, {epochs} x {steps}")
    history = task.fit(
        data, epochs=epochs, steps_per_epoch=steps, verbose=2
    ).history
    record |= {
        "epochs": epochs,
        "batch_size": stage.batch_size,
        "learning_rate": learning_rate,
        "seconds": round(time.time() - started),
        "training": {
            key: [round(float(v), 4) for v in values]
            for key, values in history.items()
        },
        "validation_scores": stage.score(task, scenes["validation"]),
        "test_scores": stage.score(task, load_scenes("test")),
        "blind_test_scores": stage.blind,
    }
    # Users may train frozen layers.
    task.trainable = True
    text = tiny_training.page(
        *(__file__, f"{PREFIX}{name}", task, record),
        task=type(task).__name__,
        measure=stage.measure,
        texts=stage.texts,
        validation=json.dumps(record["validation_scores"]),
    )
    # Some stages have no texts of their own.
    text = text.replace("\n\n\n", "\n")
    tiny_training.save(task, settings.folder / f"{PREFIX}{name}", record, text)
    shown = {k: v for k, v in record.items() if k != "training"}
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
