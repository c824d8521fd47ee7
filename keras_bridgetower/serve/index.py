"""The index of a server, searched by the models of one of its presets."""

import pathlib

from keras_bridgetower.search.models import SearchModels
from keras_bridgetower.search.picture_search import PictureSearch
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
        models = SearchModels(tasks["embed"], tasks.get("score"))
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
            hits = self._search.query(
                asked.text, asked.image, asked.top_k, asked.rerank
            )
        except ValueError as error:
            # Messages about the index hold paths of this machine.
            if "`store`" in str(error):
                LOG.error("The index cannot be searched", exc_info=error)
                return Refused("The index cannot be searched now.")
            return Refused(str(error))
        return [_told(hit) for hit in hits]


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
