"""Run tasks of mteb, and make some from your own pictures and texts."""

import copy
import hashlib
import pathlib
import tempfile

import datasets
import mteb
import numpy as np
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from PIL import Image

from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.images import load_image
from keras_bridgetower.training.reranker import read_rows

SPLIT = "test"
# Of a table of pairs.
COLUMNS = {"image", "text", "false"}
# Tasks whose lists a cross-encoder can rerank: text and picture in a pair.
RERANKED = ("t2i", "i2t")


def evaluate(folder, tasks, encoder, cross_encoder=None, top_k=20):
    """Run tasks of mteb, and write its result files.

    Args:
        folder: path, where mteb writes
            `results/<model>/<revision>/<task>.json`. Existing files of the
            same model and revision are overwritten.
        tasks: list of mteb's tasks.
        encoder: `BridgeTowerEncoder`.
        cross_encoder: `BridgeTowerCrossEncoder`, which reranks the lists that
            the encoder finds of pictures for texts or texts for pictures. The
            encoder alone runs other tasks. Or None.
        top_k: int, pictures or texts of a list that it reranks.

    Returns:
        dict from the names of models to a dict from the names of tasks to
        their main scores.

    Raises:
        ValueError: `top_k` below 1.

    Example:

    ```python
    evaluate("results", [mteb.get_task("Flickr30kT2IRetrieval")], encoder)
    ```
    """
    check_count("top_k", top_k)
    found = {}

    def run(model, task, **more):
        (result,) = mteb.evaluate(
            model,
            task,
            cache=mteb.ResultCache(folder),
            overwrite_strategy="always",
            show_progress_bar=False,
            **more,
        )
        scores = found.setdefault(model.mteb_model_meta.name, {})
        scores[result.task_name] = result.get_score()

    for task in tasks:
        with tempfile.TemporaryDirectory() as lists:
            run(encoder, task, prediction_folder=lists)
            searches = isinstance(task, AbsTaskRetrieval)
            reranked = searches and task.metadata.category in RERANKED
            if reranked and cross_encoder is not None:
                # The conversion changes a task and its data.
                again = copy.copy(task)
                if again.data_loaded:
                    again.unload_data()
                run(cross_encoder, again.convert_to_reranking(lists, top_k))
    return found


def picture_retrieval(name, description, pictures, texts, fits):
    """Create a task of mteb: find pictures by texts.

    Args:
        name: str, the task's name in the result files.
        description: str, what is searched by what.
        pictures: list of uint8 arrays `(height, width, 3)`.
        texts: list of str, the queries.
        fits: bool array `(texts, pictures)`: which pictures a text finds.

    Returns:
        `AbsTaskRetrieval`, whose revision is a checksum of its data.

    Raises:
        ValueError: `fits` of another shape, or a text without a picture.

    Example:

    ```python
    pictures = list(np.zeros((2, 8, 8, 3), "uint8"))
    task = picture_retrieval(
        "Mine", "two pictures", pictures, ["a dot", "a line"], np.eye(2))
    mteb.evaluate(encoder, task, cache=None)[0].get_score()
    ```
    """
    fits = np.asarray(fits, bool)
    if fits.shape != (len(texts), len(pictures)) or not fits.any(1).all():
        raise ValueError(
            "`fits` must be (texts, pictures), with a picture for each text. "
            f"Received: shape {fits.shape} for {len(texts)} texts and "
            f"{len(pictures)} pictures, {int((~fits.any(-1)).sum())} texts "
            "without a picture"
        )
    found = [str(i) for i in range(len(pictures))]
    asked = [f"q{i}" for i in range(len(texts))]
    relevant = {
        query: {found[i]: 1 for i in np.flatnonzero(row)}
        for query, row in zip(asked, fits, strict=True)
    }
    return _task(
        *(name, description, "t2i", "ndcg_at_10"),
        _checksum(pictures, texts, np.packbits(fits).tobytes()),
        corpus=_pictures(found, pictures),
        queries=_texts(asked, texts),
        relevant_docs=relevant,
    )


def caption_choice(name, description, pictures, captions):
    """Create a task of mteb: find a picture's caption among false ones.

    Its main score is the accuracy: how often the true caption comes first. Of
    equal scores the true one does not.

    Args:
        name: str, the task's name in the result files.
        description: str, how false captions differ from the true ones.
        pictures: list of uint8 arrays `(height, width, 3)`.
        captions: list of one list of str for each picture: the true caption,
            then at least one that is false.

    Returns:
        As `picture_retrieval`.

    Raises:
        ValueError: `captions` of another length, or a picture without a false
            one.

    Example:

    ```python
    picture = np.zeros((8, 8, 3), "uint8")
    task = caption_choice(
        "Mine", "colors", [picture], [["a dark square", "a light square"]])
    mteb.evaluate(encoder, task, cache=None)[0].get_score()
    ```
    """
    counts = [len(told) for told in captions]
    if len(counts) != len(pictures) or min(counts, default=0) < 2:
        raise ValueError(
            "`captions` must have a list for each picture, with a true and a "
            f"false caption. Received: {len(pictures)} pictures and lists of "
            f"the lengths {counts!r:.200}"
        )
    asked = [f"q{i}" for i in range(len(pictures))]
    # mteb sorts equal scores by these names, the largest first.
    lists = {
        query: [f"{query}-{place}" for place in range(count)]
        for query, count in zip(asked, counts, strict=True)
    }
    texts = sum(captions, [])
    return _task(
        *(name, description, "i2t", "accuracy"),
        _checksum(pictures, texts, str(counts).encode()),
        corpus=_texts(sum(lists.values(), []), texts),
        queries=_pictures(asked, pictures),
        relevant_docs={query: {row[0]: 1} for query, row in lists.items()},
        top_ranked=lists,
    )


def read_pairs(path):
    """Read pictures with a true and a false caption each.

    Args:
        path: path of a `.csv`, `.jsonl` or `.parquet` file with the columns
            `image`, a path from the folder of the file, `text`, the true
            caption, `false`, and if wanted `sort`.

    Returns:
        list of tasks, as `caption_choice`, one for each sort.

    Raises:
        ValueError: another file, no rows, a row without its columns, or a
            picture that cannot be read.
    """
    path, rows = pathlib.Path(path), read_rows(path)
    if not rows or not all(COLUMNS <= row.keys() for row in rows):
        raise ValueError(
            f"`pairs` must have rows, each with {sorted(COLUMNS)}. "
            f"Received: {len(rows)} rows, {rows[:1]!r:.200}"
        )
    sorts = {}
    for row in rows:
        sorts.setdefault(row.get("sort", "all"), []).append(row)
    return [
        caption_choice(
            f"{path.stem}-{sort}",
            f"true and false captions of {path.name}",
            [load_image(path.parent / row["image"]) for row in some],
            [[row["text"], row["false"]] for row in some],
        )
        for sort, some in sorts.items()
    ]


def _task(name, description, category, score, revision, **data):
    """Return a task of mteb with data in its format."""

    class LocalTask(AbsTaskRetrieval):
        """The task."""

        metadata = TaskMetadata(
            name=name,
            description=description,
            dataset={"path": f"local/{name}", "revision": revision},
            type="Any2AnyRetrieval",
            category=category,
            modalities=["text", "image"],
            eval_splits=[SPLIT],
            eval_langs=["eng-Latn"],
            main_score=score,
        )

        def load_data(self, num_proc=None, **kwargs):
            if not self.data_loaded:
                # A conversion to reranking changes the dict.
                self.dataset = {
                    "default": {SPLIT: {"top_ranked": None, **data}}
                }
                self.data_loaded = True

    return LocalTask()


def _pictures(names, pictures):
    features = {"id": datasets.Value("string"), "image": datasets.Image()}
    images = [Image.fromarray(picture) for picture in pictures]
    return datasets.Dataset.from_dict(
        {"id": names, "image": images}, features=datasets.Features(features)
    )


def _texts(names, texts):
    return datasets.Dataset.from_dict({"id": names, "text": texts})


def _checksum(pictures, texts, others):
    summed = hashlib.sha256(others)
    for picture in pictures:
        summed.update(np.ascontiguousarray(picture).tobytes())
    for text in texts:
        summed.update(text.encode() + b"\n")
    return summed.hexdigest()[:16]
