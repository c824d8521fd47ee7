"""The index of a server, searched by the models of one of its presets."""

import contextlib
import pathlib
import threading

import numpy as np

from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.apps.search.picture_search import PictureSearch
from keras_bridgetower.apps.search.stores.qdrant import QdrantFolder
from keras_bridgetower.apps.serve.errors import LOG
from keras_bridgetower.apps.serve.errors import InputError
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import ToEmbed

_UNREADABLE = "The file cannot be read now."


class ServedIndex:
    """An index and the models that search it.

    Args:
        store: str, as `PictureSearch` takes it.
        served: `ServedPreset`, whose models made the index.

    Raises:
        ValueError: no index, or one of other models.
    """

    def __init__(self, store, served):
        self._served = served
        search = PictureSearch(store, _Models(served))
        # Refuses an index of other models before anything is served.
        search.query(text="a", top_k=1, rerank=1)
        self._store = search.store
        # The other stores take queries of any number of threads.
        one_by_one = isinstance(self._store, QdrantFolder)
        self._turn = (
            threading.Lock() if one_by_one else contextlib.nullcontext()
        )

    def find(self, asked, embed, match):
        """The hits of a search.

        Args:
            asked: `inputs.ToFind`, its image decoded.
            embed: callable of an `inputs.ToEmbed` that returns a list with
                the result of the verb.
            match: callable of a list of paths and a text that returns the
                logit of each pair, or `Refused`.

        Returns:
            list of dict, the best first; or `Refused`.
        """
        models = _Models(self._served, embed, match)
        try:
            with self._turn:
                hits = PictureSearch(self._store, models).query(
                    asked.text, asked.image, asked.top_k, asked.rerank
                )
        except ValueError as error:
            # Messages about the index hold paths of this machine.
            if "`store`" in str(error):
                LOG.error("The index cannot be searched", exc_info=error)
                return Refused("The index cannot be searched now.")
            return Refused.of(error)
        return [_told(hit) for hit in hits]


class _Models(SearchModels):
    """Models of a preset that a search asks in the batches of the server.

    Args:
        served: `ServedPreset`.
        embed, match: as `ServedIndex.find`; None to ask the models at once.
    """

    def __init__(self, served, embed=None, match=None):
        tasks = served.tasks
        super().__init__(tasks["embed"], tasks.get("score"))
        self._served = served
        self._embed, self._match = embed, match

    def identity(self, vectors):
        """As `SearchModels.identity`; the weights do not change meanwhile."""
        known = self._served.identities
        if vectors not in known:
            known[vectors] = super().identity(vectors)
        return known[vectors]

    def embed(self, texts=None, images=None, **options):
        """As `SearchModels.embed`, for one input."""
        if self._embed is None:
            return super().embed(texts=texts, images=images, **options)
        # As many tokens as the index was made with, whatever is served.
        tokens = None
        if self._served.tokens is not None:
            tokenizer = self.contrastive.needed_preprocessor().tokenizer
            tokens = tokenizer.sequence_length
        asked = ToEmbed(texts, images, self.long_texts, tokens)
        [result] = self._embed(asked)
        if isinstance(result, Refused):
            raise InputError(result.about, result.message)
        return np.array(result[0], "float32")

    def matches(self, paths, text, batch_size):
        """As `SearchModels.matches`."""
        if self._match is None:
            return super().matches(paths, text, batch_size)
        return [
            ValueError(x.message) if isinstance(x, Refused) else x
            for x in self._match(paths, text)
        ]


def _told(hit):
    """Return a hit for clients, without folders of the server."""
    path = pathlib.PurePath(hit.path)
    below = path.is_relative_to(hit.folder)
    return {
        "object": "hit",
        "id": hit.name,
        "picture": str(path.relative_to(hit.folder)) if below else path.name,
        "text": hit.text,
        "similarity": hit.similarity,
        "match": hit.match,
        "problem": _UNREADABLE if hit.problem else None,
    }
