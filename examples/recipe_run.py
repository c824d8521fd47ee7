"""A recipe as a run: data, model, training that survives, official scores."""

import argparse
import ast
import contextlib
import dataclasses
import importlib.metadata
import pathlib
import warnings

import keras
import miniature_data
import numpy as np

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

# The miniature's encoders: they play the part of CLIP and RoBERTa.
TINY_ENCODERS = "bridgetower_tiny_easy_pretrain"
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
    parser.add_argument("--output", default="runs", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1000)
    parser.add_argument("--force-resume", action="store_true")
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
        folder = settings.output / "easy_vqa" / task
        miniature_data.build(task, folder)
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
    others = [
        Stream(
            readers[split], recipe.batch_size, evaluation, order=Sequential()
        )
        for split in ("validation", "test")
    ]
    return train, *others


def task_of(recipe, settings, labels):
    """The task at its start: pre-trained, or from encoders alone."""
    cls = getattr(kbt, f"BridgeTower{recipe.task}")
    values = {"image_size": recipe.image_size, **VALUES[recipe.task](recipe)}
    if recipe.task == "VQA":
        values["answers"] = labels
    with warnings.catch_warnings():
        # "The head is new": fine-tuning begins with it.
        warnings.simplefilter("ignore", UserWarning)
        task = cls.from_preset(settings.init or TINY_ENCODERS, **values)
        if settings.init is None:
            _forget_all_but_encoders(task, cls, values)
    return task


def _forget_all_but_encoders(task, cls, values):
    """Give everything above the encoders its random start."""
    fresh = cls.from_preset(TINY_ENCODERS, load_weights=False, **values)
    towers = {
        id(w)
        for tower in (task.backbone.image_tower, task.backbone.text_tower)
        for w in tower.weights
    }
    for old, new in zip(task.weights, fresh.weights, strict=True):
        if id(old) not in towers:
            old.assign(new)


def run(description, names):
    """One run: print the recipe, train, save the preset, print the scores."""
    settings = arguments(description, names)
    recipe = recipe_of(settings)
    print(recipe, flush=True)
    if settings.data is None and recipe.task not in RECORD_TASKS:
        raise SystemExit(f"{recipe.name} has no miniature: pass --data.")
    keras.utils.set_random_seed(settings.seed)
    readers = readers_of(recipe, settings)
    train, validation, test = streams_of(recipe, readers, settings.seed)
    task = task_of(recipe, settings, train.labels)
    samples = readers["train"].num_samples
    total = recipe.total_steps(samples)
    task.compile(recipe.optimizer(total))
    folder = settings.output / f"{recipe.name}-{recipe.size}"
    checkpoint = Checkpoint(
        folder / "checkpoints",
        train,
        every=settings.every,
        settings={
            **_plain(recipe),
            "seed": settings.seed,
            "init": settings.init,
        },
    )
    checkpoint.fit(
        task,
        steps=total,
        callbacks=[_logger(folder / "logs")],
        force=settings.force_resume,
    )
    if not (folder / "preset").exists():
        task.save_to_preset(folder / "preset")
    for name, stream, reader in (
        ("validation", validation, readers["validation"]),
        ("test", test, readers["test"]),
    ):
        found = SCORES[recipe.task](task, stream, reader)
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


def _evaluated(task, stream, reader):
    """Every metric of the task, in percent."""
    data = stream.dataset(epochs=1)
    found = task.evaluate(data, verbose=0, return_dict=True)
    return {k: 100 * v for k, v in found.items() if "loss" not in k}


def _statements(task, stream, reader):
    logits = task.predict(stream.dataset(epochs=1), verbose=0)
    samples = [reader.sample(i).sample for i in range(reader.num_samples)]
    report = evaluate_nlvr2(
        [sample.id for sample in samples],
        np.array([sample.labels[0] for sample in samples]),
        logits.argmax(-1),
    )
    return {"accuracy": report.accuracy, "consistency": report.consistency}


def _recalls(task, stream, reader):
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
VALUES = {
    "Pretraining": lambda recipe: {"objectives": recipe.objective},
    "Retrieval": lambda recipe: {"objective": recipe.objective},
    "VQA": lambda recipe: {"head_hidden_scale": recipe.head_scale},
    "Entailment": lambda recipe: {"head_hidden_scale": recipe.head_scale},
    "NLVR2": lambda recipe: {"head_hidden_scale": recipe.head_scale},
}
BLIND = {
    "Pretraining": "matching 50",
    "Retrieval": f"RSUM of all test pictures "
    f"{easy_vqa_captions.RETRIEVAL_LADDER[()]}",
    "VQA": easy_vqa.BLIND_TEST_SCORES["overall"],
    "Entailment": easy_vqa_entailment.BLIND_ENTAILMENT["text and view"],
    "NLVR2": easy_vqa_pairs.BLIND_PAIRS["text and right"],
}
