"""Rerank pictures by a text, as a cross-encoder of texts does."""

import dataclasses

import numpy as np

from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.images import decoded
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval


@dataclasses.dataclass(eq=False)
class BridgeTowerReranker:
    """Reranks pictures by a text, or texts by a picture.

    It has `predict` and `rank` as sentence-transformers' `CrossEncoder` has
    them, without importing it. `export_to_sentence_transformers` is for that
    library; for LangChain, LlamaIndex, Haystack and LanceDB see
    `keras_bridgetower.apps.search.adapters`.

    One item of each pair is a text, the other a picture: a path, bytes,
    base64, a PIL image or an array. Of two strings the first is the text;
    `{"text": ...}` and `{"image": ...}` say which is which.

    Args:
        task: a `BridgeTowerRetrieval` with a preprocessor.
        batch_size: int, pairs of a forward pass.

    Example:

    ```python
    reranker = BridgeTowerReranker(retrieval)
    pictures = list(np.zeros((3, 64, 64, 3), "uint8"))
    reranker.rank("a red circle", pictures, top_k=2)
    reranker.predict([("a red circle", pictures[0])])  # (1,)
    ```
    """

    task: BridgeTowerRetrieval
    batch_size: int = 32

    @classmethod
    def from_preset(cls, preset, batch_size=32, **kwargs):
        """Create a reranker with the matching head of a preset.

        Args:
            preset: as `BridgeTowerRetrieval.from_preset`.
            batch_size: as the class.
            **kwargs: further arguments of `BridgeTowerRetrieval.from_preset`.

        Raises:
            ValueError: no such preset, or one without a matching head.
        """
        task = BridgeTowerRetrieval.from_preset(preset, **kwargs)
        task.new_heads.check("rank", task.answering_heads)
        return cls(task, batch_size)

    def predict(self, inputs, batch_size=None):
        """Score pairs of a text and a picture.

        Args:
            inputs: list of pairs, or one pair, as the class describes them.
            batch_size: int, pairs of a forward pass, or None for the
                reranker's own.

        Returns:
            float32 array `(pairs,)`, for one pair a float32, as
            `BridgeTowerRetrieval.score` returns them. Higher is better.

        Raises:
            ValueError: a pair that is not a text and a picture, an empty
                text, or a picture that cannot be read.
        """
        if not len(inputs):
            return np.zeros(0, "float32")
        one = not isinstance(inputs[0], (list, tuple))
        pairs = [inputs] if one else inputs
        pairs = [_read(pair, f"inputs[{i}]") for i, pair in enumerate(pairs)]
        size = self.batch_size if batch_size is None else batch_size
        texts, pictures = map(list, zip(*pairs, strict=True))
        scores = self.task.score(pictures, texts, size)
        return scores[0] if one else scores

    def rank(
        self,
        query,
        documents,
        top_k=None,
        return_documents=False,
        batch_size=None,
    ):
        """Sort pictures by how well a text fits them, or texts by a picture.

        Args:
            query: a text, or a picture that is not a str, or `{"image": ...}`.
            documents: list of pictures, for a picture list of texts.
            top_k: int, how many are returned; None for all.
            return_documents: bool, whether each result holds its document.
            batch_size: as `predict`.

        Returns:
            list of dicts, best first: `"corpus_id"`, the index of the
            document, `"score"` as of `predict`, and with `return_documents`
            `"text"`, the document itself.

        Raises:
            ValueError: as `predict`.
        """
        if top_k is not None:
            check_count("top_k", top_k)
        scores = self.predict(
            [(query, document) for document in documents], batch_size
        )
        order = np.argsort(-scores, kind="stable")[:top_k].tolist()
        found = [{"corpus_id": i, "score": float(scores[i])} for i in order]
        if return_documents:
            for result in found:
                result["text"] = documents[result["corpus_id"]]
        return found


def _read(pair, name):
    """Return the text and the picture of a pair."""
    if len(pair) == 2:
        first, second = map(_kinds, pair)
        for text, picture in ((first, second), (second, first)):
            if "text" in text and "image" in picture:
                return text["text"], decoded(picture["image"], name)
    raise ValueError(
        f"`{name}` must be a text and a picture. Received: {pair!r:.200}"
    )


def _kinds(item):
    """Return an item by its possible kinds: a str is a text or a path."""
    if isinstance(item, dict):
        return item if len(item) == 1 else {}
    kinds = ("text", "image") if isinstance(item, str) else ("image",)
    return dict.fromkeys(kinds, item)
