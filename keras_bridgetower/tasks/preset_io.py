"""Opens a task from a preset, saves it to one, and marks its new heads."""

import hashlib
import os
import pathlib
import shutil
import warnings
from collections import abc

import keras
import numpy as np

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import layer_records
from keras_bridgetower.checks import OF_CLASSES
from keras_bridgetower.checks import OF_PRESETS
from keras_bridgetower.checks import check_keywords
from keras_bridgetower.checks import constructor_values
from keras_bridgetower.models import head_table
from keras_bridgetower.models.exporting import runtime
from keras_bridgetower.preprocessing import image_converter
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.preprocessing.classification import checked_answers
from keras_bridgetower.preprocessing.preprocessor import OF_PREPROCESSORS
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import errors
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file

# Constructor values that no caller of `from_preset` gives.
OF_BASES = ("backbone", *OF_CLASSES)
# Keras' own, which no task's constructor names.
OF_MODELS = ("compile", "trainable")


# Beside an exported model: what the task is, and a program that runs it.
DESCRIPTION = "export.json"
RUNNER = "run.py"


class PresetTask(keras.Model):
    """Abstract: a task that is opened from presets and saved to them."""

    @classmethod
    def from_preset(
        cls,
        preset,
        load_weights=True,
        image_size=None,
        image_mode=None,
        sequence_length=None,
        dtype=None,
        revision=None,
        random_heads=False,
        image_tokens=None,
        **kwargs,
    ):
        """Open a task from a preset, or from weights of another library.

        Args:
            preset: a name of `presets`, a handle such as
                `"hf://user/model"`, or the path of a preset folder, of a
                `transformers` folder or of a checkpoint file of the authors.
            load_weights: bool, whether to load weights or leave them at
                their random start.
            image_size: int; learned positions are resized.
            image_mode: str, how the image converter makes a square of a
                picture.
            sequence_length: int, tokens in each text.
            dtype: a Keras dtype policy or its name.
            revision: str, branch, tag or commit of a handle's repository.
            random_heads: bool. Heads that the preset lacks are new: a warning
                says so, and verbs raise until they are trained. Not so with
                True.
            image_tokens: int, to how many tokens those of a picture are
                merged before the fusion: faster, and less exact. None for the
                preset's own value.
            **kwargs: `preprocessor`, and constructor values of the class.

        Raises:
            TypeError: an unknown keyword.
            ValueError: no such preset, files that were changed or are
                damaged, or values that this task does not read.
        """
        for name, value in kwargs.items():
            if isinstance(value, abc.Iterator):
                # Both the preprocessor and the task read it.
                kwargs[name] = list(value)
        given = {k: v for k, v in kwargs.items() if k not in OF_MODELS}
        others = (*OF_PREPROCESSORS, *OF_PRESETS, "dtype", "random_heads")
        check_keywords(cls, given, others + OF_MODELS, without=OF_BASES)
        reading = {"image_mode": image_mode, "sequence_length": sequence_length}
        passed = "preprocessor" in kwargs
        unread = {k: v for k, v in reading.items() if v}
        if passed and unread:
            raise ValueError(
                f"{sorted(unread)} must be left out where `preprocessor` is "
                f"passed. Received: {unread}"
            )
        folder = registry.open_preset(preset, revision)
        saved = head_table.saved_heads(folder)
        own = _saved_values(cls, folder, saved)
        values = {**own, **kwargs}
        merged = {}
        if image_tokens is not None:
            merged = {"image_tokens": image_tokens}
        backbone = cls.backbone_cls.from_preset(
            folder, load_weights, image_size=image_size, dtype=dtype, **merged
        )
        if not passed:
            reading["image_size"] = image_size
            own["preprocessor"] = build_preprocessor(
                cls, folder, reading, values, backbone
            )

        def make(values):
            awaited = saved if load_weights else {}
            with head_table.awaiting(awaited, folder.room_for_heads()):
                return cls(backbone=backbone, **values)

        model = folder.create(weights_file.TASK, make, own, kwargs)
        if merged and not {"images", "padding_mask"} <= set(model.input):
            raise ValueError(
                f"`image_tokens` must be None for {cls.__name__}, which does "
                f"not run the fusion. Received: image_tokens={image_tokens!r}"
            )
        if load_weights:
            # Other answers or sizes than the preset's make a new head.
            changed = bool(set(given) - {"name"}) or passed
            load_heads(model, folder, saved, random_heads, changed)
        return model

    @classmethod
    def from_encoders(
        cls,
        image_encoder,
        text_encoder,
        image_size=None,
        sequence_length=None,
        with_classifier=False,
        **kwargs,
    ):
        """Build a task on two pre-trained encoders.

        Pictures are normalized, and texts tokenized, as the encoders were
        trained. The fusion and the heads are newly initialized: verbs raise
        until they are trained.

        Args:
            image_encoder: a KerasHub preset such as `"dinov2_base"`, a handle
                `"hf://user/model"`, or the path of a `transformers` folder.
            text_encoder: the same, such as `"hf://xlm-roberta-base"`.
            image_size: int, side of the pictures in pixels; learned positions
                are resized. By default that of the encoder.
            sequence_length: int, tokens in each text.
            with_classifier: bool, whether the image encoder keeps the linear
                classifier of its files, see `ClassifiedEncoder`.
            **kwargs: constructor values of `BridgeTowerBackbone`, such as
                `hidden_dim` and `bridge`, and of this class.

        Raises:
            TypeError: an unknown keyword.
            ValueError: an encoder without a rule, files that are damaged or
                of another kind, or values that do not fit.

        Example:

        ```python
        vqa = kbt.BridgeTowerVQA.from_encoders(
            "hf://google/siglip2-base-patch16-256",
            "hf://FacebookAI/xlm-roberta-base",
            answers=["yes", "no"],
        )
        ```
        """
        own = constructor_values(cls) - {"backbone", *OF_CLASSES}
        fusion = constructor_values(cls.backbone_cls) - own
        fusion -= {"image_encoder", "text_encoder", "dtype"}
        for name in set(kwargs) - own - fusion:
            raise TypeError(
                f"`{cls.__name__}.from_encoders` takes the keywords "
                f"{sorted(own | fusion)}. Received: {name}={kwargs[name]!r}"
            )
        values = {k: v for k, v in kwargs.items() if k in own}
        made = cls.preprocessor_cls
        names = [
            name
            for name in ("tokenizer", "image_converter")
            if getattr(made, f"{name}_cls") is not None
            and "preprocessor" not in values
        ]
        if "preprocessor" in values and sequence_length is not None:
            raise TypeError(
                "`sequence_length` must not be passed beside `preprocessor`, "
                "whose tokenizer has one. Received: "
                f"sequence_length={sequence_length!r}"
            )
        parts = registry.open_encoders(
            image_encoder,
            text_encoder,
            image_size,
            sequence_length,
            kwargs.get("text_summary"),
            names,
            with_classifier,
        )
        backbone = cls.backbone_cls(
            parts.image_encoder,
            parts.text_encoder,
            **{k: v for k, v in kwargs.items() if k in fusion}
            | {"text_summary": parts.text_summary},
        )
        if "preprocessor" not in values:
            read = {name: getattr(parts, name) for name in names}
            read |= {k: values[k] for k in cls.label_arguments if k in values}
            values["preprocessor"] = made(**read, **_features(cls, backbone))
        model = cls(backbone, **values)
        model.new_heads.note(model.start_heads(set(model.head_values)))
        return model

    def save_task_weights(self, filepath):
        """Save the heads' weights to a `.weights.h5` file."""
        # KerasHub's own method would put the optimizer beside them.
        self.heads.save(filepath)

    def load_task_weights(self, filepath):
        """Load what `save_task_weights` saved."""
        self.heads.load(filepath)

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Save the task to a new preset folder, with a manifest.

        Args:
            preset_dir: path of a folder that does not exist yet, or its URL
                in an object store, such as `"s3://bucket/preset"`.
            max_shard_size: number, largest weight file in GB.

        Raises:
            ValueError: the folder exists.
        """
        layer_records.check_one_policy(self, self.backbone)

        def save(folder):
            write_task(folder, max_shard_size)
            registry.drop_frozen_state(folder)
            heads = os.path.join(folder, weights_file.TASK_WEIGHTS)
            weights_file.make_dense(heads)
            random = self.new_heads.still_random(self.head_values)
            held = {
                k: v for k, v in self.head_values.items() if k not in random
            }
            registry.write_json(folder, registry.HEADS, held)

        write_task = super().save_to_preset
        registry.write(preset_dir, save)

    def export_to_transformers(self, path):
        """Write a folder that `transformers` opens with `from_pretrained`.

        Tasks without a class there (VQA, entailment, NLVR2) become a
        `BridgeTowerModel`, with the head in `head.safetensors` beside it.

        Args:
            path: path of a folder that does not exist yet.

        Raises:
            ConversionError: transformers cannot run this architecture.
        """
        registry.export(self, path)

    def _write_companions(self, folder, chosen, part):
        described = {
            "task": type(self).__name__,
            "part": part,
            # Of a part the outputs are no logits.
            "class_names": None if part else self.class_names,
            "rejection": None if part else getattr(self, "rejection", None),
        }
        registry.write_json(folder, DESCRIPTION, described)
        if self.preprocessor is None:
            return
        self.preprocessor.save_to_preset(str(folder))
        if chosen.runs:
            shutil.copyfile(runtime.__file__, pathlib.Path(folder, RUNNER))


def _saved_values(cls, folder, saved):
    """Constructor values of a task that a preset holds."""
    task = folder.json(weights_file.TASK, {})
    if task.get("class_name") != cls.__name__:
        with folder.reading(registry.HEADS):
            return cls.head_arguments(saved)
    # Which heads are new, `heads.json` tells; which layers are quantized is
    # read with the weights.
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


def build_preprocessor(cls, folder, reading, values, backbone):
    """Return the preprocessor of a preset for a task class.

    Args:
        cls: the task class.
        folder: `PresetFolder`.
        reading: dict of `image_size`, `image_mode` and `sequence_length`.
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
    chosen |= _features(cls, backbone)
    if cls.preprocessor_cls.image_converter_cls is None:
        # The size is that of the backbone alone.
        reading = {**reading, "image_size": None}
    return cls.preprocessor_cls.from_preset(folder, **reading, **chosen)


def _features(cls, backbone):
    """Return the features of a preprocessor for BERT, which reads segments."""
    if "segment_ids" not in backbone.input:
        return {}
    text = cls.preprocessor_cls.tokenizer_cls is not None
    images = cls.preprocessor_cls.image_converter_cls is not None
    read = {name: text for name in backbone.input} | {"images": images}
    return {"features": tuple(n for n in backbone.input if read[n])}


def load_heads(model, folder, saved, random_heads, changed=False):
    """Load the heads that a preset holds; say which are new.

    Args:
        model: the task.
        folder: `PresetFolder`.
        saved: dict, what its `heads.json` holds.
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
# In configurations, where there are such heads alone.
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
            # Of more weights where adapters came in, which change nothing yet.
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
