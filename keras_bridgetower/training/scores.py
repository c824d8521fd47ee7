"""The scores that a run by a recipe ends with, by the official protocols."""

import json

import numpy as np

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall

# Samples that are looked at for labels, which a test split may lack.
LOOKED_AT = 1000
NO_LABELS = "its samples have no labels, so there is no score"


def show(task, recipe, reader, strategy, seed, name=None, ranked=None):
    """Print the scores of a split.

    Args:
        task, recipe, reader, strategy, ranked: as `of_split` takes them.
        seed: int, the run's, which is printed too.
        name: str, printed before the scores. By default those of the folder
            and of the split.

    Returns:
        What `of_split` found.
    """
    name = name or name_of(reader)
    found = of_split(task, recipe, reader, strategy, ranked)
    if found is None:
        print(f"{name}: {NO_LABELS}")
        return None
    shown = ", ".join(f"{k} {v:.2f}" for k, v in found.items())
    print(f"{name}: {shown} (seed {seed})")
    return found


def name_of(reader):
    """The folder and the split of a `RecordReader`, in words."""
    return f"{reader.folder.name} {reader.split}"


def of_split(task, recipe, reader, strategy, ranked=None, verbose=None):
    """The scores of a split.

    Args:
        task: the trained task.
        recipe: the run's `Recipe`.
        reader: a `RecordReader`, the split.
        strategy: the run's, of `kbt.distribute`.
        ranked: int, how many pictures retrieval ranks with all their texts.
            By default all.
        verbose: int, 0 for no progress bar of a ranking. By default there is
            one if all pictures are ranked.

    Returns:
        dict from the name of a score to a float, most of them in percent.
        None if the samples have no labels.
    """
    if reader.labels and not _is_labelled(reader):
        return None
    if recipe.task == "Retrieval":
        verbose = int(ranked is None) if verbose is None else verbose
        return _recalls(task, reader, recipe, ranked, verbose)
    return _of_batches(task, recipe, reader, strategy)


def _of_batches(task, recipe, reader, strategy):
    """The scores of a task that is evaluated batch by batch."""
    stream = Stream(
        reader,
        recipe.micro_batch_size,
        transform(recipe.eval_transform, recipe.image_size),
        order=Sequential(),
        # Filled up, all batches are of one size: JAX compiles one program.
        remainder="pad",
    )
    share = strategy.share(stream)
    data = strategy.batches(share, epochs=1, training=False)
    if recipe.task == "NLVR2":
        logits = task.predict(data, verbose=0)
        told = strategy.gather_text(json.dumps(share.report.numbers))
        unread = {number for one in told for number in json.loads(one)}
        places = _places(
            reader.num_samples, stream.batch_size, strategy.processes, unread
        )
        return _statements(logits, reader, places)
    found = task.evaluate(data, verbose=0, return_dict=True)
    # Every metric, in percent.
    return {k: 100 * v for k, v in found.items() if "loss" not in k}


def _is_labelled(reader):
    looked_at = range(min(LOOKED_AT, reader.num_samples))
    return any(reader.sample(i).sample.labels for i in looked_at)


def _places(samples, batch_size, processes, unread):
    """Where each sample stands among predictions: dict from its number.

    Each process fills its part of a batch at the end, also for samples that
    it could not read. Those are not in the dict.
    """
    found, share = {}, batch_size // processes
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        for process in range(processes):
            first, end = (
                start + count * part // processes
                for part in (process, process + 1)
            )
            rows = [n for n in range(first, end) if n not in unread]
            for place, number in enumerate(rows, start + process * share):
                found[number] = place
    return found


def _statements(logits, reader, places):
    """NLVR2's accuracy and consistency, of predictions at some places."""
    samples = [reader.sample(number).sample for number in places]
    report = evaluate_nlvr2(
        [sample.id for sample in samples],
        np.array([sample.labels[0] for sample in samples]),
        logits[list(places.values())].argmax(-1),
    )
    return {"accuracy": report.accuracy, "consistency": report.consistency}


def _recalls(task, reader, recipe, most, verbose):
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
        images,
        texts,
        shortlist=recipe.shortlist,
        verbose=verbose,
    )
    report = retrieval_recall(scores, np.array(owner), split=reader.split)
    pool = f"RSUM of {report.images} pictures, {report.texts} texts"
    if recipe.shortlist is not None:
        pool += f" by a shortlist of {recipe.shortlist}"
    return {**report.recalls, pool: report.rsum}
