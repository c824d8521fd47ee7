"""A recipe as a run: data, model, training that survives, official scores."""

import argparse
import ast
import contextlib
import dataclasses
import importlib.metadata
import pathlib

import keras
import miniature_data
import numpy as np
import recipe_model

import keras_bridgetower as kbt
from keras_bridgetower.data import easy_vqa
from keras_bridgetower.data import easy_vqa_captions
from keras_bridgetower.data import easy_vqa_entailment
from keras_bridgetower.data import easy_vqa_pairs
from keras_bridgetower.data.augment import transform
from keras_bridgetower.data.order import Sequential
from keras_bridgetower.data.pipeline import Stream
from keras_bridgetower.data.records import open_records
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall
from keras_bridgetower.training import recipes
from keras_bridgetower.training.callbacks import Checkpoint

# Pictures of the miniature that are ranked, each with all its texts.
RANKED = 60


def arguments(description, names):
    """The command line of both examples."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("recipe", choices=names, nargs="?", default=names[0])
    parser.add_argument("--data", help="folder of records (build_dataset.py)")
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
        "--distribute", default="none", help="kind of `kbt.distribute`"
    )
    parser.add_argument(
        *("--set", "-s"),
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="other values of the recipe, such as batch_size=64",
    )
    return parser.parse_args()


def recipe_of(settings):
    """The recipe of a command line; the miniature where no data is named."""
    recipe = recipes.get(settings.recipe)
    recipe = recipe if settings.data else recipe.tiny()
    changes = dict(change.split("=", 1) for change in settings.set)
    return recipe.replace(**{k: _value(v) for k, v in changes.items()})


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def readers_of(recipe, settings):
    """The splits of the run's data: dict from name to `RecordReader`."""
    folder = settings.data
    if folder is None:
        task = RECORD_TASKS[recipe.task]
        folder = (
            settings.output / "easy_vqa" / f"{task}-{settings.records or 'all'}"
        )
        miniature_data.build(task, folder, settings.records)
    return {
        split: open_records(folder, split) for split in miniature_data.SPLITS
    }


def streams_of(recipe, readers, seed):
    """Batches for training, for validation, and for the test."""
    evaluation = transform(recipe.eval_transform, recipe.image_size)
    train = Stream(
        readers["train"],
        recipe.batch_size,
        transform(recipe.transform, recipe.image_size),
        remainder="drop",
        seed=seed,
    )
    # Filled up, all batches are of one size, and JAX compiles one program.
    others = [
        Stream(
            readers[split],
            recipe.batch_size,
            evaluation,
            order=Sequential(),
            remainder="pad",
        )
        for split in ("validation", "test")
    ]
    return train, *others


def task_of(recipe, settings, labels):
    """The task at its start, by what the command line names."""
    if settings.encoders:
        return recipe_model.from_encoders(recipe, *settings.encoders, labels)
    if settings.init:
        return recipe_model.from_preset(recipe, settings.init, labels)
    if settings.data:
        raise SystemExit("--data needs --init, or --encoders IMAGE TEXT.")
    return recipe_model.from_tiny_encoders(recipe, labels)


def run(description, names):
    """One run: print the recipe, train, save the preset, print the scores."""
    settings = arguments(description, names)
    recipe = recipe_of(settings)
    print(recipe, flush=True)
    if recipe.task not in RECORD_TASKS:
        raise SystemExit(
            f"{recipe.name} is no run of this example: take the recipe into a "
            f"script of your own, with `BridgeTower{recipe.task}`."
        )
    strategy = kbt.distribute(settings.distribute)
    keras.utils.set_random_seed(settings.seed)
    readers = readers_of(recipe, settings)
    train, validation, test = streams_of(recipe, readers, settings.seed)
    total = recipe.total_steps(readers["train"].num_samples)
    with strategy.scope():
        task = task_of(recipe, settings, train.labels)
        task.preprocessor.tokenizer.sequence_length = recipe.text_length
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
    checkpoint.fit(
        task,
        steps=total,
        callbacks=[_logger(folder / "logs")],
        force=settings.force_resume,
    )
    if not (folder / "preset").exists():
        strategy.save_to_preset(task, folder / "preset")
    for name, stream in (("validation", validation), ("test", test)):
        data = strategy.dataset(stream.dataset(epochs=1), training=False)
        found = SCORES[recipe.task](task, data, readers[name])
        shown = ", ".join(f"{k} {v:.2f}" for k, v in found.items())
        print(f"{name}: {shown} (seed {settings.seed})")
    if settings.data is None:
        print(f"blind, on test: {BLIND[recipe.task]}")
    print(f"preset: {folder / 'preset'}")
    print(train.report)
    return found


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


def _evaluated(task, data, reader):
    """Every metric of the task, in percent."""
    found = task.evaluate(data, verbose=0, return_dict=True)
    return {k: 100 * v for k, v in found.items() if "loss" not in k}


def _statements(task, data, reader):
    logits = task.predict(data, verbose=0)[: reader.num_samples]
    samples = [reader.sample(i).sample for i in range(reader.num_samples)]
    report = evaluate_nlvr2(
        [sample.id for sample in samples],
        np.array([sample.labels[0] for sample in samples]),
        logits.argmax(-1),
    )
    return {"accuracy": report.accuracy, "consistency": report.consistency}


def _recalls(task, data, reader):
    records, texts, owner = {}, [], []
    for number in range(reader.num_samples):
        item = reader.sample(number)
        if item.key not in records and len(records) == RANKED:
            break
        records.setdefault(item.key, item.images[0])
        texts.append(item.sample.text)
        owner.append(len(records) - 1)
    images = list(records.values())
    scores = task.rank(images, texts, verbose=0)
    report = retrieval_recall(scores, np.array(owner), split=reader.split)
    return {**report.recalls, "RSUM": report.rsum}


RECORD_TASKS = {
    "Pretraining": "captions",
    "Retrieval": "captions",
    "VQA": "vqa",
    "Entailment": "entailment",
    "NLVR2": "nlvr2",
}
SCORES = {
    "Pretraining": _evaluated,
    "Retrieval": _recalls,
    "VQA": _evaluated,
    "Entailment": _evaluated,
    "NLVR2": _statements,
}
BLIND = {
    "Pretraining": "matching 50",
    "Retrieval": f"RSUM of all test pictures "
    f"{easy_vqa_captions.RETRIEVAL_LADDER[()]}",
    "VQA": easy_vqa.BLIND_TEST_SCORES["overall"],
    "Entailment": easy_vqa_entailment.BLIND_ENTAILMENT["text and view"],
    "NLVR2": easy_vqa_pairs.BLIND_PAIRS["text and right"],
}
