"""The models of the page: each is opened once, by its first request."""

import dataclasses
import functools
import threading

from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import shipped_with
from keras_bridgetower.presets.verbs import EMBED_IMAGES
from keras_bridgetower.tasks import by_name

_OFFERED = {
    "emoji": ("vqa", "contrastive", "retrieval", "mlm"),
    "easy": ("vqa", "mlm", "pretrain", "retrieval", "contrastive"),
}
# The presets of the page unless others are named. A tab starts with the first
# one that has its head.
OFFERED = tuple(
    f"bridgetower_tiny_{family}_{name}"
    for family, names in _OFFERED.items()
    for name in names
)
# Models in memory.
_MODELS = 8
# Opens `SearchModels` rather than the task of its verb.
SEARCH = dataclasses.replace(EMBED_IMAGES, does="search pictures")


class DemoModels:
    """Models by preset, opened when first used, for any number of threads.

    Args:
        presets: sequence of str, the presets that the page offers, as
            `from_preset` takes them.
        others: bool, True if visitors may open other presets.
    """

    def __init__(self, presets=OFFERED, others=True):
        self.presets = tuple(presets)
        self.others = others
        self._opened = functools.lru_cache(_MODELS)(
            lambda cls, preset: cls.from_preset(preset)
        )
        self._opening = threading.Lock()

    def offered(self, verbs):
        """List the offered presets that have one of some verbs.

        Args:
            verbs: tuple of `Verb`.

        Raises:
            ValueError: one of the presets does not exist.
        """
        return [name for name in self.presets if _verbs(name, verbs)]

    def open(self, preset, *verbs):
        """Open a preset as the task of the first of some verbs that it has.

        Args:
            preset: str.
            *verbs: `Verb`.

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
        fitting = _verbs(preset, verbs)
        if not fitting:
            raise RefusedInput(
                f"The model “{preset}” cannot {verbs[0].does}: it has no head "
                f"{' or '.join(verbs[0].heads)}. Choose another one, such as "
                f"{shipped_with(verbs[0].heads)[0]}."
            )
        cls = SearchModels
        if fitting[0] is not SEARCH:
            cls, _ = by_name.verbs()[fitting[0].name]
        # One at a time: two at once need memory for both.
        with self._opening:
            return self._opened(cls, preset)


def _verbs(preset, verbs):
    """Return those of some verbs that a preset has a head for."""
    known = PRESETS.get(preset)
    heads = known.heads if known else by_name.saved_heads(preset)
    return [verb for verb in verbs if set(verb.heads) & set(heads)]
