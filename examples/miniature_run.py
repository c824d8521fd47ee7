"""Runs a recipe in miniature: easy-VQA, tiny encoders, two minutes."""

import miniature_data
from easy_world import captions
from easy_world import entailment
from easy_world import pairs
from easy_world import pictures

from keras_bridgetower.training import scores
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
    "Retrieval": f"RSUM of all test pictures {captions.RETRIEVAL_LADDER[()]}",
    "VQA": pictures.BLIND_TEST_SCORES["overall"],
    "Entailment": entailment.BLIND_ENTAILMENT["text and view"],
    "NLVR2": pairs.BLIND_PAIRS["text and right"],
}


def main(description, names, given=None, callbacks=lambda checkpoint: []):
    """The command line of an example: a miniature where no data is named.

    Args:
        description: str, printed by `--help`.
        names: list of str, the recipes to choose from.
        given: list of str, its words. By default those of the process.
        callbacks: as `train.run` takes it.
    """
    commands = train.parser(description, names, optional=True)
    commands.add_argument(
        "--records", type=int, help="of each split of the miniature, not all"
    )
    settings = commands.parse_args(given)
    recipe = paper.get(settings.recipe)
    if settings.data:
        if not (settings.init or settings.encoders):
            commands.error("--data needs --init, or --encoders IMAGE TEXT.")
        recipe = train.with_changes(recipe, settings.set)
        train.run(recipe, settings, callbacks=callbacks)
        return
    train.run(
        train.with_changes(recipe.tiny(), settings.set),
        settings,
        folders=lambda strategy: [records_folder(recipe, settings, strategy)],
        start=start_of,
        show=show,
        callbacks=callbacks,
    )


def records_folder(recipe, settings, strategy):
    """The folder of the miniature's records, which the first process writes."""
    task = train.RECORD_TASKS[recipe.task]
    name = f"{task}-{settings.records or 'all'}"
    folder = settings.output / "easy_vqa" / name
    strategy.by_chief(
        lambda: miniature_data.build(task, folder, settings.records)
    )
    return folder


def start_of(recipe, settings, labels):
    """As `train.start_of`; by default pre-trained encoders, the rest new."""
    if settings.init or settings.encoders:
        return train.start_of(recipe, settings, labels)
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
    """As `scores.show`, and beside it the blind score."""
    scores.show(
        *(task, recipe, reader, strategy, seed),
        name=reader.split,
        ranked=RANKED,
    )
    if reader.split == "test":
        print(f"blind, on test: {BLIND[recipe.task]}")
