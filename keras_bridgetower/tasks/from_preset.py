"""Parts of `from_preset`: saved values, preprocessor, saved and new heads."""

import hashlib
import warnings

import numpy as np

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import layer_records
from keras_bridgetower.checks import check_keywords
from keras_bridgetower.models import head_table
from keras_bridgetower.preprocessing import image_converter
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.preprocessing.classification import checked_answers
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import errors
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file


def saved_values(cls, folder, saved):
    """Return constructor values of a task that a preset holds."""
    task = folder.json(weights_file.TASK, {})
    if task.get("class_name") != cls.__name__:
        with folder.reading(registry.HEADS):
            return cls.head_arguments(saved)
    # `heads.json` says which heads are new; quantized layers are read with
    # the weights.
    left_out = {"backbone", "preprocessor", "trainable", "dtype"}
    left_out |= {NEW_HEADS, layer_records.QUANTIZED, layer_records.FROZEN}
    with folder.reading(weights_file.TASK):
        values = {k: v for k, v in task["config"].items() if k not in left_out}
        configs.check_values(values)
        check_keywords(cls, values, without=left_out)
        # The preprocessor would blame the caller for them.
        for name in ("answers", "labels"):
            if values.get(name) is not None:
                checked_answers(values[name], name)
    return values


def build_preprocessor(cls, folder, parts, values, backbone):
    """Return the preprocessor of a preset for a task class.

    Args:
        cls: the task class.
        folder: `PresetFolder`.
        parts: dict of `image_size`, `image_mode` and `sequence_length`.
        values: dict, constructor values of the task.
        backbone: the backbone.

    Returns:
        A preprocessor; None, with a warning, where a part of it is missing.

    Raises:
        ValueError: labels that neither the preset nor the caller names.
    """
    for part, file in (
        ("tokenizer", packed_tokenizer.CONFIG),
        ("image_converter", image_converter.CONFIG),
    ):
        needed = getattr(cls.preprocessor_cls, f"{part}_cls") is not None
        if needed and not folder.has(file):
            warnings.warn(
                f"{cls.__name__} takes features only: there are no {part} "
                "files with the weights. Pass `preprocessor`.",
                stacklevel=3,
            )
            return None
    missing = [k for k in cls.label_arguments if values.get(k) is None]
    if missing:
        raise ValueError(
            f"`{missing[0]}` must be given: the preset does not hold it. "
            f"Received: preset={str(folder.root)!r}, {missing[0]}=None"
        )
    chosen = {k: values[k] for k in cls.label_arguments}
    chosen |= features(cls, backbone)
    if cls.preprocessor_cls.image_converter_cls is None:
        # The size is that of the backbone alone.
        parts = {**parts, "image_size": None}
    return cls.preprocessor_cls.from_preset(folder, **parts, **chosen)


def features(cls, backbone):
    """Return the features of a preprocessor for BERT, which reads segments."""
    if "segment_ids" not in backbone.input:
        return {}
    text = cls.preprocessor_cls.tokenizer_cls is not None
    images = cls.preprocessor_cls.image_converter_cls is not None
    read = {name: text for name in backbone.input} | {"images": images}
    return {"features": tuple(n for n in backbone.input if read[n])}


def load_heads(model, folder, saved, random_heads, changed=False):
    """Load the heads that a preset holds, and warn of new ones.

    Args:
        model: the task.
        folder: `PresetFolder`.
        saved: dict, the content of its `heads.json`.
        random_heads: bool, whether new ones were asked for, and verbs may
            answer by them.
        changed: bool, whether the caller chose values of heads. Otherwise
            each head of the task that the preset lists must fit.

    Raises:
        errors.PresetError: a head that the preset lists does not fit the task.
    """
    agrees, values = head_table.agrees_with_saved, model.head_values
    held = [n for n in values if agrees(n, saved.get(n), values[n])]
    new = [n for n in values if n not in held]
    unfit = [n for n in new if n in saved]
    if unfit and not changed:
        name = unfit[0]
        raise errors.PresetError(
            f"{registry.HEADS} must hold the values of the preset's heads, and "
            f"the head {name} of this {type(model).__name__} has others.",
            folder.root,
            [f"{name} with {errors.short_text(saved[name])}"],
        )
    if held:
        weights_file.load_heads(model.heads, held, folder)
    random = model.start_heads(set(new))
    new = [name for name in new if name in random]
    if new and not random_heads:
        model.new_heads.note(new)
        warnings.warn(
            f"Newly initialized in this {type(model).__name__}: head "
            f"{', '.join(f'`{name}`' for name in new)}. The preset has "
            f"{', '.join(saved) or 'no head'}"
            f"{' with other values' if set(new) & set(saved) else ''}. "
            "Train it before use.",
            NewHeadWarning,
            stacklevel=3,
        )


# Numbers of a weight that are looked at; any training changes some of them.
_LOOKED_AT = 1_000
_DIGITS = 16
# Key in the configuration of a task with such heads.
NEW_HEADS = "new_heads"


class NewHeadWarning(UserWarning):
    """A preset lacks a head of the task, which is newly initialized."""


class NewHeads:
    """The heads of a task that are new, because its preset lacks them.

    A head counts as trained when its values have changed, whichever way
    (`fit`, a loop of one's own, `load_weights`, `assign`).

    Args:
        heads: the task's `HeadSet`.
    """

    def __init__(self, heads):
        self._heads = heads
        self._starts = {}

    def note(self, names):
        """Mark heads as newly initialized."""
        self._starts = {name: self._digests(name) for name in names}

    def saved(self):
        """Return the heads' state for a configuration, or `{}`."""
        return {
            name: self._starts[name] for name in self.still_random(self._heads)
        }

    def restore(self, saved):
        """Restore the result of `saved`, before weights are loaded."""
        self._starts = {n: v for n, v in saved.items() if n in self._heads}

    def still_random(self, names):
        """Return those of some heads whose values have not changed."""
        left = []
        for name in names:
            start = self._starts.get(name)
            # Adapters add weights, which change no output yet.
            if start and start == self._digests(name)[: len(start)]:
                left.append(name)
        return left

    def check(self, verb, names):
        """Raise an error if an untrained head is read.

        Args:
            verb: str, the method that was called.
            names: iterable of str, the heads that it reads.

        Raises:
            ValueError: one of them is random.
        """
        left = self.still_random(names)
        for name in set(names) - set(left):
            # A trained head need not be looked at again.
            self._starts.pop(name, None)
        if left:
            raise ValueError(
                f"`{verb}` reads the head {', '.join(left)}, which is newly "
                "initialized. Train it by `fit`, or pass `random_heads=True`"
            )

    def _digests(self, name):
        """Return a digest of some numbers of every weight of a head."""
        made = []
        for weight in self._heads[name].weights:
            flat = np.ravel(backend_ops.local_part(weight))
            some = flat[:: max(flat.size // _LOOKED_AT, 1)]
            made.append(hashlib.sha256(some.tobytes()).hexdigest()[:_DIGITS])
        return made
