"""The scores that a run by a recipe ends with, by the official protocols."""

import functools

import numpy as np
from easy_world import captions
from easy_world import entailment
from easy_world import pairs
from easy_world import pictures

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall

# Pictures of the miniature that are ranked, each with all its texts.
RANKED = 60
# Samples that are looked at for labels, which a test split may lack.
LOOKED_AT = 1000


def show(task, recipe, reader, strategy, settings):
    """Print the scores of a split.

    Args:
        task: the trained task.
        recipe: the run's `Recipe`.
        reader: a `RecordReader`, the split.
        strategy: the run's, of `kbt.distribute`.
        settings: the command line.
    """
    miniature = not settings.data
    name = reader.split if miniature else f"{reader.folder.name} {reader.split}"
    if reader.labels and not _is_labelled(reader):
        print(f"{name}: its samples have no labels, so there is no score")
        return
    stream = Stream(
        reader,
        recipe.micro_batch_size,
        transform(recipe.eval_transform, recipe.image_size),
        order=Sequential(),
        # Filled up, all batches are of one size: JAX compiles one program.
        remainder="pad",
    )
    data = strategy.batches(stream, epochs=1, training=False)
    scores = SCORES if miniature else SCORES | IN_FULL
    rows = list(_places(reader.num_samples, stream.batch_size, strategy))
    found = scores[recipe.task](task, data, reader, recipe, rows)
    shown = ", ".join(f"{k} {v:.2f}" for k, v in found.items())
    print(f"{name}: {shown} (seed {settings.seed})")
    if miniature and reader.split == "test":
        print(f"blind, on test: {BLIND[recipe.task]}")


def _is_labelled(reader):
    looked_at = range(min(LOOKED_AT, reader.num_samples))
    return any(reader.sample(i).sample.labels for i in looked_at)


def _places(samples, batch_size, strategy):
    """Where samples stand among predictions: each process fills its batch."""
    share = batch_size // strategy.processes
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        for process in range(strategy.processes):
            first, end = (
                count * part // strategy.processes
                for part in (process, process + 1)
            )
            place = start + process * share
            yield from range(place, place + end - first)


def _evaluated(task, data, reader, recipe, rows):
    """Every metric of the task, in percent."""
    found = task.evaluate(data, verbose=0, return_dict=True)
    return {k: 100 * v for k, v in found.items() if "loss" not in k}


def _statements(task, data, reader, recipe, rows):
    logits = task.predict(data, verbose=0)[rows]
    samples = [reader.sample(i).sample for i in range(reader.num_samples)]
    report = evaluate_nlvr2(
        [sample.id for sample in samples],
        np.array([sample.labels[0] for sample in samples]),
        logits.argmax(-1),
    )
    return {"accuracy": report.accuracy, "consistency": report.consistency}


def _recalls(task, data, reader, recipe, rows, most=None, verbose=1):
    """Of all pictures with all their texts, or of the first `most`.

    Where the recipe has a shortlist, its pairs alone are fused.
    """
    records, texts, owner = {}, [], []
    for number in range(reader.num_samples):
        item = reader.sample(number)
        if item.key not in records and len(records) == most:
            break
        records.setdefault(item.key, item.images[0])
        texts.append(item.sample.text)
        owner.append(len(records) - 1)
    images = list(records.values())
    scores = task.rank(
        images, texts, shortlist=recipe.shortlist, verbose=verbose
    )
    report = retrieval_recall(scores, np.array(owner), split=reader.split)
    pool = f"RSUM of {report.images} pictures, {report.texts} texts"
    if recipe.shortlist is not None:
        pool += f" by a shortlist of {recipe.shortlist}"
    return {**report.recalls, pool: report.rsum}


SCORES = {
    "Pretraining": _evaluated,
    "Retrieval": functools.partial(_recalls, most=RANKED, verbose=0),
    "VQA": _evaluated,
    "Entailment": _evaluated,
    "NLVR2": _statements,
}
# Of data that a user names, in place of those.
IN_FULL = {"Retrieval": _recalls}
BLIND = {
    "Pretraining": "matching 50",
    "Retrieval": f"RSUM of all test pictures {captions.RETRIEVAL_LADDER[()]}",
    "VQA": pictures.BLIND_TEST_SCORES["overall"],
    "Entailment": entailment.BLIND_ENTAILMENT["text and view"],
    "NLVR2": pairs.BLIND_PAIRS["text and right"],
}
