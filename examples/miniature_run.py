"""Run a recipe in miniature: easy-VQA, small encoders, two minutes."""

import argparse
import pathlib

import example
import keras
import miniature_data
import numpy as np
from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import pictures

from keras_bridgetower.training import evaluate
from keras_bridgetower.training import train
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe

# The miniature's encoders: they play the part of CLIP and RoBERTa.
ENCODERS = "bridgetower_tiny_easy_pretrain"
# Pictures that are ranked, each with all its texts.
RANKED = 60
# What the test split gives without a look at its pictures.
BLIND = {
    "Pretraining": "matching 50",
    "Retrieval": f"RSUM of all test pictures {captions.BLIND_RSUM}",
    "VQA": pictures.BLIND_TEST_SCORES["overall"],
    "Entailment": entailment.BLIND_ENTAILMENT["text and view"],
    "NLVR2": pairs.BLIND_PAIRS["text and right"],
}


def main(description, names, given=None, callbacks=lambda checkpoint: []):
    commands = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    add = commands.add_argument
    add("recipe", choices=names, nargs="?", default=names[0])
    add("--init", help="preset to start from")
    add("--output", default="runs", type=pathlib.Path)
    add("--seed", type=int, default=0)
    add("--every", type=int, default=1000, help="updates between checkpoints")
    add("--distribute", default="auto", help="kind of `kbt.distribute`")
    add("--set", "-s", nargs="+", default=[], metavar="FIELD=VALUE")
    add("--records", type=int, help="of each split, not all")
    commands.set_defaults(
        encoders=None,
        force_resume=False,
        other_hosts=False,
        max_bad_share=0.001,
        window=16,
        lanes=None,
        shard_devices=None,
        gradient_dtype=None,
    )
    settings = commands.parse_args(given)
    recipe = paper.get(settings.recipe)
    return train.run(
        train.with_changes(recipe.tiny(), settings.set),
        settings,
        folders=lambda strategy: [records_folder(recipe, settings, strategy)],
        start=build_task,
        show=show,
        callbacks=callbacks,
    )


def main_with_figure(description, names):
    """Run `main`, and save a figure of losses and scores if it trained."""
    losses = Losses()
    preset, found = main(description, names, callbacks=losses.of_run)
    if losses.of_steps:
        name = preset.parent.name
        example.save(
            figure_of(name, losses.of_steps, found),
            preset.parent,
            "training.png",
            "the loss of each step, and the scores",
        )


class Losses(keras.callbacks.Callback):
    """Notes the loss of each step, in the process that writes files."""

    def __init__(self):
        super().__init__()
        self.of_steps = []

    def of_run(self, checkpoint):
        """Return the callbacks for `train.run`."""
        return [self] if checkpoint.strategy.is_chief else []

    def on_epoch_begin(self, epoch, logs=None):
        self._sums = [0.0]

    def on_train_batch_end(self, batch, logs=None):
        # Keras gives the mean over the epoch so far.
        self._sums.append(float(logs["loss"]) * len(self._sums))
        self.of_steps.append(self._sums[-1] - self._sums[-2])


def figure_of(name, losses, found):
    figure = example.new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, len(losses) + 1)
    color = "#0072b2"
    left.plot(steps, losses, color=color, alpha=0.25)
    width = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    left.plot(steps[width - 1 :], smooth, color=color)
    left.set(ylabel="loss", title=f"{name}: training")
    left.set_xlabel(f"step; dark: mean of {width}")
    left.grid(alpha=0.3)
    for row, (split, values) in enumerate(found.items()):
        places = np.arange(len(values)) + 0.38 * (row - 0.5)
        bars = right.barh(places, values.values(), 0.36, label=split)
        right.bar_label(bars, fmt="%.1f", padding=3)
        right.set_yticks(range(len(values)), values)
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set(xlabel="score", title="Scores of what was not trained on")
    figure.legend(loc="outside lower right", ncols=2)
    return figure


def records_folder(recipe, settings, strategy):
    """Return the folder of records; the first process writes them."""
    task = task_of_recipe.RECORD_TASKS[recipe.task]
    name = f"{task}-{settings.records or 'all'}"
    folder = settings.output / "easy_vqa" / name
    strategy.by_chief(
        lambda: miniature_data.build(task, folder, settings.records)
    )
    return folder


def build_task(recipe, settings, labels):
    """Build the task; by default with pre-trained encoders, the rest new."""
    if settings.init:
        return train.build_task(recipe, settings, labels)
    task = task_of_recipe.from_preset(recipe, ENCODERS, labels)
    fresh = task_of_recipe.from_preset(
        recipe, ENCODERS, labels, load_weights=False
    )
    towers = (task.backbone.image_tower, task.backbone.text_tower)
    encoders = {id(w) for tower in towers for w in tower.weights}
    for old, new in zip(task.weights, fresh.weights, strict=True):
        if id(old) not in encoders:
            old.assign(new)
    return task


def show(task, recipe, reader, strategy, seed):
    found = evaluate.print_scores(
        *(task, recipe, reader, strategy, seed),
        name=reader.split,
        ranked=RANKED,
    )
    if reader.split == "test":
        print(f"blind, on test: {BLIND[recipe.task]}")
    return found
