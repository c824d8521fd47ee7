"""The models of the page, each opened by its first request."""

import dataclasses
import functools
import threading

from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import shipped_with
from keras_bridgetower.presets.verbs import EMBED_IMAGES
from keras_bridgetower.tasks import by_name

# Presets of the page by default. A tab starts with the first that has its head.
OFFERED = tuple(shipped_with(("vqa", "itc", "itm", "mlm")))
# Models in memory.
_MODELS = 8
# Opens `SearchModels`, not a task.
SEARCH = dataclasses.replace(EMBED_IMAGES, does="search pictures")


class DemoModels:
    """Models by preset, for any number of threads.

    Args:
        presets: sequence of str, the presets that the page offers.
        others: bool, True if visitors may open other presets.
        loading: callable of the name of a preset, before a request loads it.

    Raises:
        ValueError: one of the presets does not exist.
    """

    def __init__(self, presets=OFFERED, others=True, loading=str):
        self.presets = tuple(presets)
        self.others, self._loading = others, loading
        self._heads = {name: _heads(name) for name in self.presets}
        # Lists of a model, which are empty until it is opened.
        self._opened = functools.lru_cache(_MODELS)(lambda cls, preset: [])
        self._opening = threading.Lock()

    def offered(self, verbs):
        """List the offered presets that have one of some verbs."""
        return [name for name in self.presets if self._verbs(name, verbs)]

    def open(self, preset, *verbs):
        """Open a preset as the task of the first of some verbs that it has.

        Raises:
            RefusedInput: no preset, one that visitors may not open, or one
                without the head.
            ValueError: as `from_preset`.
        """
        preset = preset.strip() if isinstance(preset, str) else ""
        if not preset:
            raise RefusedInput("Choose a model first.")
        if not (self.others or preset in self.presets):
            raise RefusedInput(f"This page does not offer “{preset}”.")
        fitting = self._verbs(preset, verbs)
        if not fitting:
            raise RefusedInput(
                f"The model “{preset}” cannot {verbs[0].does}: it has no head "
                f"{' or '.join(verbs[0].heads)}. Choose another one, such as "
                f"{shipped_with(verbs[0].heads)[0]}."
            )
        cls = SearchModels
        if fitting[0] is not SEARCH:
            cls, _ = by_name.verbs()[fitting[0].name]
        model = self._opened(cls, preset)
        if not model:
            self._loading(preset)
            # One at a time: two at once need memory for both.
            with self._opening:
                if not model:
                    model.append(cls.from_preset(preset))
        return model[0]

    def _verbs(self, preset, verbs):
        """Return the verbs that a preset has a head for."""
        heads = self._heads.get(preset) or _heads(preset)
        return [verb for verb in verbs if set(verb.heads) & set(heads)]


def _heads(preset):
    known = PRESETS.get(preset)
    return known.heads if known else by_name.saved_heads(preset)
