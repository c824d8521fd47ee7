"""A recipe as a run: data, model, training that survives, official scores."""

import argparse
import ast
import contextlib
import dataclasses
import importlib.metadata
import pathlib
import shutil

import keras
import miniature_data
import recipe_model
import recipe_scores

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.runs.checkpoint import Checkpoint


def arguments(description, names, given=None):
    """The command line of both examples, or one that is given."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("recipe", choices=names, nargs="?", default=names[0])
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FOLDER",
        help="records (build_dataset.py), of several data sets for one run",
    )
    parser.add_argument("--init", help="preset to start from")
    parser.add_argument(
        "--encoders",
        nargs=2,
        metavar=("IMAGE", "TEXT"),
        help="uni-modal encoders to start from (convert.unimodal)",
    )
    parser.add_argument("--output", default="runs", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--records", type=int, help="of each split of the miniature, not all"
    )
    parser.add_argument("--every", type=int, default=1000)
    parser.add_argument("--force-resume", action="store_true")
    parser.add_argument(
        "--distribute", default="auto", help="kind of `kbt.distribute`"
    )
    parser.add_argument(
        *("--set", "-s"),
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="other values of the recipe, such as batch_size=64",
    )
    return parser.parse_args(given)


def recipe_of(settings):
    """The recipe of a command line; the miniature where no data is named."""
    recipe = paper.get(settings.recipe)
    recipe = recipe if settings.data else recipe.tiny()
    changes = dict(change.split("=", 1) for change in settings.set)
    return recipe.replace(**{k: _value(v) for k, v in changes.items()})


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def readers_of(recipe, settings, strategy):
    """The splits of the run's data: dict from name to `RecordReader`s."""
    folders = settings.data
    if not folders:
        task = RECORD_TASKS[recipe.task]
        name = f"{task}-{settings.records or 'all'}"
        folders = [settings.output / "easy_vqa" / name]
        strategy.by_chief(
            lambda: miniature_data.build(task, folders[0], settings.records)
        )
    readers = {split: [] for split in miniature_data.SPLITS}
    for folder in folders:
        # Some data sets are for training alone.
        there = read_index(folder)["splits"]
        for split, opened in readers.items():
            if split in there or split == "train":
                opened.append(open_records(folder, split))
    return readers


def stream_of(recipe, readers, seed):
    """Batches for training."""
    return Stream(
        readers,
        recipe.micro_batch_size,
        transform(recipe.transform, recipe.image_size),
        remainder="drop",
        seed=seed,
    )


def task_of(recipe, settings, labels):
    """The task at its start, by what the command line names."""
    if settings.encoders:
        return recipe_model.from_encoders(recipe, *settings.encoders, labels)
    if settings.init:
        return recipe_model.from_preset(recipe, settings.init, labels)
    if settings.data:
        raise SystemExit("--data needs --init, or --encoders IMAGE TEXT.")
    return recipe_model.from_tiny_encoders(recipe, labels)


def run(settings, beside=lambda checkpoint: []):
    """One run: print the recipe, train, save the preset, print the scores.

    Args:
        settings: the command line, as `arguments` returns it.
        beside: callable of the run's `Checkpoint`, which returns callbacks.
    """
    recipe = recipe_of(settings)
    print(recipe, flush=True)
    if recipe.task not in RECORD_TASKS:
        raise SystemExit(
            f"{recipe.name} is no run of this example: take the recipe into a "
            f"script of your own, with `BridgeTower{recipe.task}`."
        )
    strategy = kbt.distribute(settings.distribute)
    keras.utils.set_random_seed(settings.seed)
    readers = strategy.together(lambda: readers_of(recipe, settings, strategy))
    train = stream_of(recipe, readers["train"], settings.seed)
    total = recipe.total_steps(sum(r.num_samples for r in readers["train"]))
    with strategy.scope():
        task = task_of(recipe, settings, train.labels)
        recipe_model.set_text_length(task, recipe.text_length)
        task.compile(recipe.optimizer(total))
    folder = settings.output / f"{recipe.name}-{recipe.size}"
    checkpoint = Checkpoint(
        folder / "checkpoints",
        train,
        every=settings.every,
        settings=_plain(recipe)
        | {"seed": settings.seed, "init": settings.init or settings.encoders},
        strategy=strategy,
    )
    loggers = [_logger(folder / "logs")] if strategy.is_chief else []
    history = checkpoint.fit(
        task,
        steps=total,
        callbacks=[*loggers, *beside(checkpoint)],
        force=settings.force_resume,
    )
    preset = folder / "preset"
    if strategy.any(bool(history.epoch) or not preset.exists()):
        save(task, preset, strategy)
    for reader in readers["validation"] + readers["test"]:
        recipe_scores.show(task, recipe, reader, strategy, settings)
    print(f"preset: {preset}")
    print(checkpoint.stream.report)


def save(task, preset, strategy):
    """Save the task, in the place of what an earlier run left there."""
    new = preset.with_name("preset-new")

    def take_place():
        shutil.rmtree(preset, ignore_errors=True)
        new.rename(preset)

    strategy.by_chief(lambda: shutil.rmtree(new, ignore_errors=True))
    strategy.save_to_preset(task, new)
    strategy.by_chief(take_place)


def _logger(folder):
    """TensorBoard's files where it is installed, else a table."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("tensorboard")
        return keras.callbacks.TensorBoard(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return keras.callbacks.CSVLogger(folder.with_suffix(".csv"), append=True)


def _plain(recipe):
    values = dataclasses.asdict(dataclasses.replace(recipe, original=None))
    return {k: repr(v) for k, v in values.items()}


RECORD_TASKS = {
    "Pretraining": "captions",
    "Retrieval": "captions",
    "VQA": "vqa",
    "Entailment": "entailment",
    "NLVR2": "nlvr2",
}
