"""The models of the page: each is opened once, whoever asks first."""

import threading
import typing

from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.limits import Limits
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.models import head_table
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import DEFAULT_FAMILY
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.tasks.contrastive import BridgeTowerContrastive
from keras_bridgetower.tasks.entailment import BridgeTowerEntailment
from keras_bridgetower.tasks.masked_lm import BridgeTowerMaskedLM
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval
from keras_bridgetower.tasks.vqa import BridgeTowerVQA

_OFFERED = {
    "easy": ("vqa", "mlm", "pretrain", "retrieval", "contrastive"),
    "emoji": ("vqa", "contrastive", "retrieval", "mlm"),
}
# The presets of the page unless others are named, those of the default family
# first: a tab starts with the first that has its head.
OFFERED = tuple(
    sorted(
        (
            f"bridgetower_tiny_{family}_{name}"
            for family, names in _OFFERED.items()
            for name in names
        ),
        key=lambda name: not name.startswith(DEFAULT_FAMILY),
    )
)


class Kind(typing.NamedTuple):
    """What a tab asks of a preset.

    Args:
        opens: class with `from_preset`.
        heads: tuple of str. The preset must have one of them.
        does: str, what a preset without them cannot do.
    """

    opens: type
    heads: tuple
    does: str


ASK = Kind(BridgeTowerVQA, ("vqa",), "answer questions")
MATCH = Kind(BridgeTowerRetrieval, ("itm", "rank"), "match texts and pictures")
SEARCH = Kind(SearchModels, ("itc",), "search pictures")
FILL = Kind(BridgeTowerMaskedLM, ("mlm",), "fill blanks")
ENTAIL = Kind(BridgeTowerEntailment, ("entailment",), "judge sentences")
EMBED = Kind(BridgeTowerContrastive, ("itc",), "embed texts and pictures")
# Any of them shows its attention.
LOOK = (ASK, MATCH, FILL, ENTAIL, EMBED)


class DemoModels:
    """Models by preset, opened when they are first asked. Any thread may ask.

    Args:
        presets: tuple of str, the presets that the page offers, as
            `from_preset` takes them.
        others: bool, whether other presets may be opened too.
        limits: `Limits`.

    Raises:
        ValueError: one of the presets does not exist.
    """

    def __init__(self, presets=OFFERED, others=True, limits=None):
        self.limits = limits or Limits()
        self.presets = tuple(presets)
        self.others = others
        self._heads = {name: _heads_of(name) for name in self.presets}
        self._opened = {}
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def offered(self, kinds):
        """The offered presets that can do one of some kinds.

        Args:
            kinds: tuple of `Kind`.

        Returns:
            list of str.
        """
        return [name for name in self.presets if self._kinds(name, kinds)]

    def open(self, preset, *kinds):
        """The model of a preset, for the first of some kinds that it can do.

        Args:
            preset: str.
            *kinds: `Kind`.

        Returns:
            What `from_preset` of the kind gives.

        Raises:
            RefusedInput: no preset was chosen, one that may not be opened,
                or one that lacks the head.
            ValueError: as `from_preset`.
        """
        preset = preset.strip() if isinstance(preset, str) else ""
        if not preset:
            raise RefusedInput("Choose a model first.")
        if not (self.others or preset in self.presets):
            raise RefusedInput(f"This page does not offer “{preset}”.")
        fitting = self._kinds(preset, kinds)
        if not fitting:
            raise RefusedInput(_lacks_head(preset, kinds[0]))
        return self._open(preset, fitting[0])

    def _open(self, preset, kind):
        key = preset, kind.opens
        model = self._found(key)
        if model is not None:
            return model
        # One at a time: two that are opened at once need memory for both.
        with self._opening:
            model = self._found(key)
            if model is None:
                model = kind.opens.from_preset(preset)
                self._keep(key, model)
            return model

    def _found(self, key):
        with self._lock:
            model = self._opened.pop(key, None)
            if model is not None:
                # The one that was asked last stands last.
                self._opened[key] = model
            return model

    def _keep(self, key, model):
        with self._lock:
            self._opened[key] = model
            while len(self._opened) > self.limits.models:
                del self._opened[next(iter(self._opened))]

    def _kinds(self, preset, kinds):
        known = self._heads.get(preset)
        heads = _heads_of(preset) if known is None else known
        return [kind for kind in kinds if set(kind.heads) & set(heads)]


def shipped_with(kind):
    """The names of presets in the package that can do a `Kind`."""
    return [
        name
        for name, preset in PRESETS.items()
        if set(kind.heads) & set(preset.heads) and not preset.handle
    ]


def _heads_of(preset):
    """The names of the heads of a preset."""
    known = PRESETS.get(preset)
    if known:
        return known.heads
    return tuple(head_table.saved_heads(registry.open_preset(preset)))


def _lacks_head(preset, kind):
    return (
        f"The model “{preset}” cannot {kind.does}: it has no head "
        f"{' or '.join(kind.heads)}. Choose another one, such as "
        f"{shipped_with(kind)[0]}."
    )
