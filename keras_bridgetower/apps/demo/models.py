"""The models of the page: each is opened once, by its first request."""

import dataclasses
import threading

from keras_bridgetower.apps.demo.inputs import Limits
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
# Opens `SearchModels` rather than the task of its verb.
SEARCH = dataclasses.replace(EMBED_IMAGES, does="search pictures")


class DemoModels:
    """Models by preset, opened when first used, for any number of threads.

    Args:
        presets: tuple of str, the presets that the page offers, as
            `from_preset` takes them.
        others: bool, True if visitors may open other presets.
        limits: `Limits`.

    Raises:
        ValueError: one of the presets does not exist.
    """

    def __init__(self, presets=OFFERED, others=True, limits=None):
        self.limits = limits or Limits()
        self.presets = tuple(presets)
        self.others = others
        self._heads = {name: _preset_heads(name) for name in self.presets}
        self._opened = {}
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def offered(self, verbs):
        """List the offered presets that have one of some verbs.

        Args:
            verbs: tuple of `Verb`.
        """
        return [name for name in self.presets if self._verbs(name, verbs)]

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
        verb = self._checked(preset, verbs)
        cls, _ = by_name.verbs()[verb.name]
        return self._open(preset.strip(), cls)

    def open_search(self, preset):
        """Open the `SearchModels` of a preset, with errors as in `open`."""
        self._checked(preset, (SEARCH,))
        return self._open(preset.strip(), SearchModels)

    def _checked(self, preset, verbs):
        preset = preset.strip() if isinstance(preset, str) else ""
        if not preset:
            raise RefusedInput("Choose a model first.")
        if not (self.others or preset in self.presets):
            raise RefusedInput(f"This page does not offer “{preset}”.")
        fitting = self._verbs(preset, verbs)
        if not fitting:
            raise RefusedInput(
                f"The model “{preset}” cannot {verbs[0].does}: it has no head "
                f"{' or '.join(verbs[0].heads)}. {other_model(verbs)}"
            )
        return fitting[0]

    def _open(self, preset, cls):
        key = preset, cls
        model = self._used(key)
        if model is None:
            # One at a time: two at once need memory for both.
            with self._opening:
                model = self._used(key) or cls.from_preset(preset)
                self._used(key, model)
        return model

    def _used(self, key, new=None):
        """Return a model, or None, and note that it was used last."""
        with self._lock:
            model = self._opened.pop(key, new)
            if model is not None:
                self._opened[key] = model
            while len(self._opened) > self.limits.models:
                del self._opened[next(iter(self._opened))]
            return model

    def _verbs(self, preset, verbs):
        heads = self._heads.get(preset)
        if heads is None:
            heads = _preset_heads(preset)
        return [verb for verb in verbs if set(verb.heads) & set(heads)]


def other_model(verbs):
    """Return a sentence that names a preset with a verb, or an empty one."""
    shipped = shipped_with(verbs[0].heads)
    return f"Choose another one, such as {shipped[0]}." if shipped else ""


def _preset_heads(preset):
    """Return the names of the heads of a preset."""
    known = PRESETS.get(preset)
    if known:
        return known.heads
    return by_name.saved_heads(preset)
