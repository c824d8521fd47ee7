"""Make a retrieval task for mteb from your own pictures and texts."""

import hashlib

import datasets
import numpy as np
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from PIL import Image

SPLIT = "test"


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

    class PictureRetrieval(AbsTaskRetrieval):
        """The task."""

        metadata = TaskMetadata(
            name=name,
            description=description,
            dataset={
                "path": f"local/{name}",
                "revision": _checksum(pictures, texts, fits),
            },
            type="Any2AnyRetrieval",
            category="t2i",
            modalities=["text", "image"],
            eval_splits=[SPLIT],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc=None, **kwargs):
            if not self.data_loaded:
                data = _as_datasets(pictures, texts, fits)
                self.dataset = {"default": {SPLIT: data}}
                self.data_loaded = True

    return PictureRetrieval()


def _as_datasets(pictures, texts, fits):
    """Return corpus, queries and relevant documents as mteb reads them."""
    found = [str(i) for i in range(len(pictures))]
    asked = [f"q{i}" for i in range(len(texts))]
    features = {"id": datasets.Value("string"), "image": datasets.Image()}
    return {
        "corpus": datasets.Dataset.from_dict(
            {"id": found, "image": [Image.fromarray(x) for x in pictures]},
            features=datasets.Features(features),
        ),
        "queries": datasets.Dataset.from_dict({"id": asked, "text": texts}),
        "relevant_docs": {
            query: {found[i]: 1 for i in np.flatnonzero(row)}
            for query, row in zip(asked, fits, strict=True)
        },
        "top_ranked": None,
    }


def _checksum(pictures, texts, fits):
    summed = hashlib.sha256(np.packbits(fits).tobytes())
    for picture in pictures:
        summed.update(np.ascontiguousarray(picture).tobytes())
    for text in texts:
        summed.update(text.encode() + b"\n")
    return summed.hexdigest()[:16]
