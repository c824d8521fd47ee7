"""The index of a server, searched by the models of one of its presets."""

import pathlib

from keras_bridgetower.search.models import SearchModels
from keras_bridgetower.search.picture_search import PictureSearch
from keras_bridgetower.serve.checks import check_lengths
from keras_bridgetower.serve.checks import opened_pictures
from keras_bridgetower.serve.checks import token_counts
from keras_bridgetower.serve.errors import LOG
from keras_bridgetower.serve.errors import Refused

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
        tasks = served.tasks
        self._embed = tasks["embed"]
        models = SearchModels(self._embed, tasks.get("score"))
        self._search = PictureSearch(store, models)
        # Refuses an index of other models before anything is served.
        self._search.query(text="a", top_k=1, rerank=1)

    def find(self, asked):
        """The hits of a search.

        Args:
            asked: `inputs.ToFind`.

        Returns:
            list of dict, the best first; or `Refused`.
        """
        try:
            image = self._checked_image(asked)
            hits = self._search.query(
                asked.text, image, asked.top_k, asked.rerank
            )
        except ValueError as error:
            # Messages about the index hold paths of this machine.
            if "`store`" in str(error):
                LOG.error("The index cannot be searched", exc_info=error)
                return Refused("The index cannot be searched now.")
            return Refused.of(error)
        return [_told(hit) for hit in hits]

    def _checked_image(self, asked):
        """The picture of a search, opened, or None; its text is checked."""
        if asked.text is not None:
            tokenizer = self._embed.needed_preprocessor().tokenizer
            counts = token_counts(tokenizer, [asked.text])
            check_lengths(counts, tokenizer.sequence_length)
        if asked.image is None:
            return None
        [image] = opened_pictures(self._embed, [asked.image])
        return image


def _told(hit):
    """A hit without the folder of the server in which it lies."""
    path = pathlib.PurePath(hit.path)
    return {
        "object": "hit",
        "id": hit.name,
        "picture": str(path.relative_to(hit.folder)),
        "text": hit.text,
        "similarity": hit.similarity,
        "match": hit.match,
        "problem": _UNREADABLE if hit.problem else None,
    }
