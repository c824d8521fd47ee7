"""A reranker for Haystack."""

import dataclasses

from haystack import Document
from haystack import component

from keras_bridgetower import BridgeTowerReranker
from keras_bridgetower.apps.search.adapters import checked


@component
class BridgeTowerRanker:
    """Haystack component that sorts documents with pictures by a text.

    Needs `haystack-ai`. A picture is the `blob` of a document, or a path in
    its `meta`. The preset is opened by `warm_up` or at the first run.

    Args:
        preset: str, as for `BridgeTowerReranker.from_preset`.
        top_k: int, how many documents are kept; None for all.
        batch_size: int, pictures per forward pass.
        file_path_meta_field: str, the key of `meta` with the path.

    Example:

    ```python
    ranker = BridgeTowerRanker("bridgetower_large_itm_mlm_itc", top_k=3)
    ranker.run("a cat on a chair", documents)["documents"]
    ```
    """

    def __init__(
        self,
        preset,
        top_k=None,
        batch_size=32,
        file_path_meta_field="file_path",
    ):
        # Haystack saves the attributes that are named as arguments.
        self.preset, self.top_k, self.batch_size = preset, top_k, batch_size
        self.file_path_meta_field = file_path_meta_field
        self._reranker = None

    def warm_up(self):
        """Open the preset."""
        if self._reranker is None:
            self._reranker = BridgeTowerReranker.from_preset(
                self.preset, self.batch_size
            )

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ):
        """Return copies of the best documents, best first, with their scores.

        Args:
            query: str.
            documents: list of `Document`.
            top_k: int, in place of the component's.

        Returns:
            dict with `"documents"`.

        Raises:
            ValueError: a document without a picture, or with one that cannot
                be read.
        """
        self.warm_up()
        key = self.file_path_meta_field
        pictures = [
            document.blob.data if document.blob else document.meta.get(key)
            for document in documents
        ]
        checked(pictures, "documents", f"`blob` or `meta[{key!r}]`")
        top_k = self.top_k if top_k is None else top_k
        found = self._reranker.rank(query, pictures, top_k)
        return {
            "documents": [
                dataclasses.replace(
                    documents[one["corpus_id"]], score=one["score"]
                )
                for one in found
            ]
        }
