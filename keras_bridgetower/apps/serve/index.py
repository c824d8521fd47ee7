"""Search the index of a server with the models of one of its presets."""

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

_UNREADABLE = "The file cannot be read."


class ServedIndex:
    """An index of pictures and the models that search it.

    Args:
        store: str, as for `PictureSearch`.
        served: `ServedPreset`, whose models made the index.

    Raises:
        ValueError: there is no index, or its models differ.
    """

    def __init__(self, store, served):
        self._served = served
        search = PictureSearch(store, _Models(served))
        # Rejects an index of other models before serving.
        search.query(text="a", top_k=1, rerank=1)
        self._store = search.store
        # The other stores allow concurrent queries.
        one_by_one = isinstance(self._store, QdrantFolder)
        self._turn = (
            threading.Lock() if one_by_one else contextlib.nullcontext()
        )

    def find(self, query, embed, match):
        """Search the index.

        Args:
            query: `inputs.ToFind` with a decoded image.
            embed: callable that takes an `inputs.ToEmbed` and returns a list
                with the result of the verb.
            match: callable that takes a list of paths and a text, and returns
                the logit of each pair, or `Refused`.

        Returns:
            list of dict, best first; or `Refused`.
        """
        models = _Models(self._served, embed, match)
        try:
            with self._turn:
                hits = PictureSearch(self._store, models).query(
                    query.text, query.image, query.top_k, query.rerank
                )
        except ValueError as error:
            # Errors about the index contain paths of this machine.
            if "`store`" in str(error):
                LOG.error("The index cannot be searched", exc_info=error)
                return Refused("The index cannot be searched.")
            return Refused.of(error)
        return [_public(hit) for hit in hits]


class _Models(SearchModels):
    """Models of a preset, called in the batches of the server.

    Args:
        served: `ServedPreset`.
        embed, match: as in `ServedIndex.find`; None to call the models
            directly.
    """

    def __init__(self, served, embed=None, match=None):
        tasks = served.tasks
        super().__init__(tasks["embed"], tasks.get("score"))
        self._served = served
        self._embed, self._match = embed, match

    def identity(self, vectors):
        """Return `SearchModels.identity`, computed once."""
        known = self._served.identities
        if vectors not in known:
            known[vectors] = super().identity(vectors)
        return known[vectors]

    def embed(self, texts=None, images=None, **options):
        """Embed one input; see `SearchModels.embed`."""
        if self._embed is None:
            return super().embed(texts=texts, images=images, **options)
        # The token count of the index, whatever the server uses.
        tokens = None
        if self._served.tokens is not None:
            tokenizer = self.contrastive.needed_preprocessor().tokenizer
            tokens = tokenizer.sequence_length
        query = ToEmbed(texts, images, self.long_texts, tokens)
        [result] = self._embed(query)
        if isinstance(result, Refused):
            raise InputError(result.about, result.message)
        return np.array(result[0], "float32")

    def matches(self, paths, text, batch_size):
        """Score picture files; see `SearchModels.matches`."""
        if self._match is None:
            return super().matches(paths, text, batch_size)
        return [
            ValueError(x.message) if isinstance(x, Refused) else x["score"]
            for x in self._match(paths, text)
        ]


def _public(hit):
    """Describe a hit to clients, without folders of the server."""
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
