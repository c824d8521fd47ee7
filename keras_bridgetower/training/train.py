"""Trains by a recipe of the paper on records, and scores the result.

`keras-bridgetower train` is its command line.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import math
import pathlib
import shutil
import socket

import keras

from keras_bridgetower import object_stores
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.epoch_order import times_fetched
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.distribution.distribute import distribute
from keras_bridgetower.presets import stores
from keras_bridgetower.tasks.fit import batch_checks
from keras_bridgetower.training import evaluate
from keras_bridgetower.training.recipes import task_of_recipe
from keras_bridgetower.training.runs.checkpoint import Checkpoint

SPLITS = ("train", "validation", "test")
OF_DISTRIBUTION = ("shard_devices", "gradient_dtype")


def with_changes(recipe, changes):
    """Return a recipe with the values of `--set`.

    Args:
        recipe: a `Recipe`.
        changes: list of str, each `FIELD=VALUE`.

    Raises:
        ValueError: an unknown field, or a value that is not allowed.
    """
    values = {}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set must be FIELD=VALUE. Received: {change!r}")
        values[field] = value
        with contextlib.suppress(ValueError, SyntaxError):
            values[field] = ast.literal_eval(value)
    return recipe.replace(**values)


def build_task(recipe, settings, labels):
    """Build the task to train from a preset or from two encoders."""
    if settings.encoders:
        return task_of_recipe.from_encoders(recipe, *settings.encoders, labels)
    return task_of_recipe.from_preset(recipe, settings.init, labels)


def run(
    recipe,
    settings,
    folders=None,
    start=build_task,
    show=evaluate.print_scores,
    callbacks=lambda checkpoint: [],
):
    """Train, save the preset and print the scores.

    Args:
        recipe: a `Recipe`, of a task that is trained on records.
        settings: namespace of `data` (folders of records), `init` or
            `encoders`, `output` (path or URL), `seed`, `every`, `window`,
            `lanes`, `force_resume`, `other_hosts`, `max_bad_share`,
            `distribute`, `shard_devices` and `gradient_dtype`: the options of
            the command line.
        folders: callable from the run's strategy to the folders of records.
            By default `settings.data`.
        start: callable from recipe, settings and labels to the task to train.
        show: callable that prints the scores of a split and returns them, such
            as `evaluate.print_scores`.
        callbacks: callable from the run's `Checkpoint` to further callbacks.

    Returns:
        The path or URL of the preset, and a dict from the name of each split
        to the result of `show`.

    Raises:
        ValueError: records, a preset or a length that do not match the recipe.
    """
    print(recipe, flush=True)
    given = {name: getattr(settings, name) for name in OF_DISTRIBUTION}
    given = {name: value for name, value in given.items() if value}
    strategy = distribute(settings.distribute, **given)
    keras.utils.set_random_seed(settings.seed)
    share = settings.max_bad_share
    own = folders or (lambda strategy: settings.data)
    readers = strategy.together(lambda: open_splits(own(strategy), share))
    train = Stream(
        readers["train"],
        recipe.micro_batch_size,
        transform(recipe.transform, recipe.image_size),
        order=choose_order(recipe, readers["train"], settings, strategy),
        remainder="drop",
        seed=settings.seed,
        max_bad_share=share,
    )
    total = recipe.total_steps(sum(r.num_samples for r in readers["train"]))
    with strategy.scope():
        task = start(recipe, settings, train.labels)
        batch_checks.check_classes(task, train.labels)
        task_of_recipe.set_text_length(task, recipe.text_length)
        if recipe.checkpoint_activations:
            task.backbone.checkpoint_activations()
        task.compile(recipe.optimizer(total))
    folder = f"{settings.output}/{recipe.name}-{recipe.size}"
    preset, loggers = f"{folder}/preset", []
    if not object_stores.is_url(settings.output):
        preset = pathlib.Path(preset)
        if strategy.is_chief:
            loggers = [_logger(pathlib.Path(folder, "logs"))]
    # A manifest has no password of a URL.
    hide = object_stores.hide
    init = hide(settings.init or "") or [*map(hide, settings.encoders)]
    checkpoint = Checkpoint(
        f"{folder}/checkpoints",
        train,
        every=settings.every,
        settings=_plain(recipe) | {"seed": settings.seed, "init": init},
        strategy=strategy,
    )
    history = checkpoint.fit(
        task,
        steps=total,
        callbacks=[*loggers, *callbacks(checkpoint)],
        force=settings.force_resume or (settings.other_hosts and "hosts"),
    )
    if strategy.any(bool(history.epoch) or not stores.exists(preset)):
        save(task, preset, strategy)
    found = {
        evaluate.split_name(reader): show(
            task, recipe, reader, strategy, settings.seed
        )
        for reader in readers["validation"] + readers["test"]
    }
    print(f"preset: {hide(preset)}")
    print(checkpoint.stream.report)
    return preset, found


def open_splits(folders, max_bad_share):
    """Return a dict from the splits of a run's data to `RecordReader`s.

    The share is that of the training split: scores need every sample.
    """
    readers = {split: [] for split in SPLITS}
    for folder in folders:
        # Some data sets are for training only.
        there = read_index(folder)["splits"]
        for split, opened in readers.items():
            if split in there or split == "train":
                share = max_bad_share if split == "train" else 0.0
                opened.append(open_records(folder, split, share))
    return readers


def choose_order(recipe, readers, settings, strategy):
    """Return the order of training, and print what machines fetch by it.

    From an object store each machine fetches whole shards, so by default the
    order has a lane for each machine, whose processes must have consecutive
    numbers, as launchers give them. All processes must call this.
    """
    machines = len({*strategy.gather_text(socket.gethostname())})
    is_far = any(reader.is_far for reader in readers)
    lanes = math.gcd(machines if is_far else 1, recipe.micro_batch_size)
    order = Shuffled(settings.window, settings.lanes or lanes)
    if is_far and machines > 1:
        shards = sum(len(reader.shards) for reader in readers)
        times = times_fetched(shards, order, machines)
        print(
            f"data: {machines} machines fetch each of {shards} shards "
            f"{times:.2f} times an epoch: {order}"
        )
    return order


def save(task, preset, strategy):
    """Save the task, and replace an earlier run's preset.

    In a store, which cannot rename, the earlier one is removed before.
    """
    if object_stores.is_url(preset):
        strategy.by_chief(lambda: stores.remove(preset))
        strategy.save_to_preset(task, preset)
        return
    new = preset.with_name("preset-new")

    def take_place():
        shutil.rmtree(preset, ignore_errors=True)
        new.rename(preset)

    strategy.by_chief(lambda: shutil.rmtree(new, ignore_errors=True))
    strategy.save_to_preset(task, new)
    strategy.by_chief(take_place)


def _logger(folder):
    """Return a logger for TensorBoard if it is installed, else for a table."""
    if importlib.util.find_spec("tensorboard"):
        return keras.callbacks.TensorBoard(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return keras.callbacks.CSVLogger(folder.with_suffix(".csv"), append=True)


def _plain(recipe):
    """Return a recipe as plain values, which a checkpoint keeps."""
    values = dataclasses.asdict(dataclasses.replace(recipe, original=None))
    return {k: repr(v) for k, v in values.items()}
