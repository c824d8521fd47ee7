"""Scores tasks on splits of records, by the official protocols."""

import json
import pathlib

import numpy as np

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.distribution.distribute import distribute
from keras_bridgetower.metrics.classification import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall
from keras_bridgetower.tasks.fit import batch_checks
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe

SCORED = ("validation", "test")
# Number of samples to search for labels, which a test split may lack.
_SEARCHED = 1000


def run(preset, folder, splits=None, recipe=None, batch_size=32):
    """Score a preset on splits of a data set.

    Args:
        preset: as in the `from_preset` of a task.
        folder: path of the data set.
        splits: list of str. By default the existing ones of validation and
            test.
        recipe: str, name of the recipe whose evaluation is used: its task,
            image size, transform and shortlist. By default the first recipe
            of the data's task, with the image size of the preset.
        batch_size: int, number of samples of a forward pass.

    Returns:
        dict from the name of each split to a dict of its scores, or None for
        samples without labels.

    Raises:
        ValueError: an unknown split or recipe, records of another task or
            with other classes than the preset, or a preset without the head.

    Example:

    ```python
    run("bridgetower_tiny_easy_vqa", "datasets/vqav2", ["validation"])
    ```
    """
    index = read_index(folder)
    known = list(index["splits"])
    splits = splits or [name for name in SCORED if name in known]
    if not splits or not set(splits) <= set(known):
        raise ValueError(
            f"`splits` must be some of {known}. Received: splits={splits}"
        )
    chosen = _recipe(recipe, index["task"])
    cls = task_of_recipe.task_class(chosen)
    strategy = distribute("none")
    with strategy.scope():
        task = cls.from_preset(
            preset, image_size=chosen.image_size if recipe else None
        )
        task.new_heads.check("evaluate", task.answering_heads)
        batch_checks.check_classes(task, index["labels"])
        task.compile()
    chosen = chosen.replace(
        image_size=task.backbone.image_size,
        batch_size=batch_size,
        accumulation=1,
    )
    readers = {split: open_records(folder, split) for split in splits}
    return {
        split: score_split(task, chosen, reader, strategy, verbose=0)
        for split, reader in readers.items()
    }


def _recipe(name, task_of_records):
    """Return the recipe of a name, or the first scored one of a task."""
    # Captions are scored by retrieval.
    scored = [r for r in paper.RECIPES.values() if r.task != "Pretraining"]
    for recipe in [paper.get(name)] if name else scored:
        if task_of_recipe.RECORD_TASKS.get(recipe.task) == task_of_records:
            return recipe
    raise ValueError(
        f"`recipe` must be of the records' task, {task_of_records!r}. "
        f"Received: recipe={name!r}"
    )


def print_scores(task, recipe, reader, strategy, seed, name=None, ranked=None):
    """Print the scores of a split.

    Args:
        task, recipe, reader, strategy, ranked: as in `score_split`.
        seed: int, the run's, which is printed too.
        name: str, printed before the scores. By default the names of the
            folder and the split.

    Returns:
        The result of `score_split`.
    """
    name = name or split_name(reader)
    scores = score_split(task, recipe, reader, strategy, ranked)
    if scores is None:
        print(f"{name}: its samples have no labels, so there is no score")
        return None
    words = ", ".join(f"{k} {v:.2f}" for k, v in scores.items())
    print(f"{name}: {words} (seed {seed})")
    return scores


def split_name(reader):
    """Return the names of the folder and the split of a `RecordReader`."""
    return f"{pathlib.PurePath(str(reader.place)).name} {reader.split}"


def score_split(task, recipe, reader, strategy, ranked=None, verbose=None):
    """Score a task on a split.

    Args:
        task: the trained task.
        recipe: the run's `Recipe`.
        reader: a `RecordReader`, the split.
        strategy: the run's, of `kbt.distribute`.
        ranked: int, number of pictures that retrieval ranks with all their
            texts. By default all.
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
    stream = Stream(
        reader,
        recipe.micro_batch_size,
        transform(recipe.eval_transform, recipe.image_size),
        order=Sequential(),
        # Padded, all batches have one size: JAX compiles one program.
        remainder="pad",
    )
    share = strategy.share(stream)
    data = strategy.batches(share, epochs=1, training=False)
    if recipe.task == "NLVR2":
        logits = task.predict(data, verbose=0)
        reports = strategy.gather_text(json.dumps(share.report.numbers))
        unread = {number for text in reports for number in json.loads(text)}
        places = _places(
            reader.num_samples, stream.batch_size, strategy.processes, unread
        )
        return _statements(logits, reader, places)
    metrics = task.evaluate(data, verbose=0, return_dict=True)
    # Every metric, in percent.
    return {k: 100 * v for k, v in metrics.items() if "loss" not in k}


def _is_labelled(reader):
    searched = range(min(_SEARCHED, reader.num_samples))
    return any(reader.sample(i).sample.labels for i in searched)


def _places(samples, batch_size, processes, unread):
    """Return the places of the samples among predictions, by their numbers.

    Each process pads its part of a batch at the end, also for unread samples,
    which are not in the dict.
    """
    places, share = {}, batch_size // processes
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        for process in range(processes):
            first, end = (
                start + count * part // processes
                for part in (process, process + 1)
            )
            rows = [n for n in range(first, end) if n not in unread]
            for place, number in enumerate(rows, start + process * share):
                places[number] = place
    return places


def _statements(logits, reader, places):
    """Return NLVR2's accuracy and consistency of predictions at places."""
    samples = [reader.sample(number).sample for number in places]
    report = evaluate_nlvr2(
        [sample.id for sample in samples],
        np.array([sample.labels[0] for sample in samples]),
        logits[list(places.values())].argmax(-1),
    )
    return {"accuracy": report.accuracy, "consistency": report.consistency}


def _recalls(task, reader, recipe, most, verbose):
    """Return the recalls of all pictures or the first `most`, with all texts.

    If the recipe has a shortlist, only its pairs are fused.
    """
    images, texts, owner = {}, [], []
    for number in range(reader.num_samples):
        item = reader.sample(number)
        if item.key not in images and len(images) == most:
            break
        images.setdefault(item.key, item.images[0])
        texts.append(item.sample.text)
        owner.append(len(images) - 1)
    pictures = list(images.values())
    shortlist = recipe.shortlist
    scores = task.rank(pictures, texts, shortlist=shortlist, verbose=verbose)
    report = retrieval_recall(scores, np.array(owner), split=reader.split)
    pool = f"RSUM of {report.images} pictures, {report.texts} texts"
    if shortlist is not None:
        pool += f" by a shortlist of {shortlist}"
    return {**report.recalls, pool: report.rsum}
