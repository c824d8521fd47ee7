"""The base class of all preprocessors of pictures and texts."""

import itertools

import keras
import keras_hub
import numpy as np

from keras_bridgetower.checks import OF_PRESETS
from keras_bridgetower.checks import MissingMethod
from keras_bridgetower.checks import check_keywords
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.checks import TOKEN_FEATURES
from keras_bridgetower.models.checks import are_states
from keras_bridgetower.models.checks import sizes_differ
from keras_bridgetower.preprocessing import kept_states
from keras_bridgetower.preprocessing import tf_graph
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.packed_tokenizer import PackedTokenizer
from keras_bridgetower.preprocessing.tf_graph import DirectLayer
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.table import PresetsOf

CONFIG = "preprocessor.json"
FEATURES = ("images", "token_ids", "padding_mask")
# Arguments of `from_preset` for the parts.
OF_PREPROCESSORS = ("image_size", "image_mode", "sequence_length")


class BridgeTowerPreprocessor(keras_hub.models.Preprocessor, DirectLayer):
    """Abstract: computes features; subclasses convert labels in `targets`.

    `docs/own_work.md` has an example. It works eagerly (NumPy out), inside
    `tf.data.Dataset.map` (tensors out) and inside a task's `fit`, `evaluate`
    and `predict`.

    Args:
        tokenizer: a `BridgeTowerTokenizer`, or for BERT's text encoder a
            `BridgeTowerBertTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        features: tuple of the features, which must be the inputs of the
            backbone: by default images, token_ids and padding_mask, and for
            BERT's tokenizer segment_ids (zeros).
        buckets: tuple of rising ints, or None. The numbers of tokens that a
            batch may have: the lowest that its longest text fits in, or the
            tokenizer's `sequence_length`. None: always the latter. A model
            computes less, with the same result; a compiled one is compiled
            once for each. `rank` has buckets of its own.
        **kwargs: `name`.

    Call arguments:
        x: dict of `"images"`, in any form that the image converter reads, and
            `"text"`, a string or a list or string tensor; the same number of
            both.
        y: labels in the form of `targets`, or None.
        sample_weight: passed through.

    Returns:
        dict of `"images"` float32 `(batch, S, S, 3)`, `"token_ids"` and
        `"padding_mask"` int32 `(batch, sequence_length)`, without batch axis
        for a single sample; with labels a tuple `(x, y)` or
        `(x, y, sample_weight)`.

    Raises:
        ValueError: missing keys, unequal counts, or inputs that the tokenizer
            or the image converter rejects.
    """

    backbone_cls = BridgeTowerBackbone
    tokenizer_cls = PackedTokenizer
    image_converter_cls = BridgeTowerImageConverter
    presets = PresetsOf()
    default_features = FEATURES
    # Shape of the pictures of one text: none, or one axis of this size.
    pictures = ()
    # True if its draws depend on the number of the batch, `x["step"]`.
    reads_step = False
    # True if labels depend on the other rows of a batch.
    pairs_rows = False
    # Constructor arguments that `get_config` adds: attributes of these names.
    config_arguments = ()

    def __init__(
        self, tokenizer, image_converter, features=None, buckets=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.image_converter = image_converter
        for name in ("tokenizer", "image_converter"):
            part, cls = getattr(self, name), getattr(self, f"{name}_cls")
            if cls is not None and not isinstance(part, cls):
                raise ValueError(
                    f"`{name}` must be a {cls.__name__}, not {part!r:.200}"
                )
        if features is None:
            segments = getattr(tokenizer, "has_segments", False)
            features = self.default_features + ("segment_ids",) * segments
        self.features = tuple(features)
        self.buckets = buckets and tuple(sorted(map(int, buckets)))

    @property
    def sequence_length(self):
        """int, tokens in each text; a new value changes this preprocessor."""
        return getattr(self.tokenizer, "sequence_length", None)

    @sequence_length.setter
    def sequence_length(self, value):
        if self.tokenizer is None:
            raise ValueError(
                "`sequence_length` must not be set where there is no "
                f"`tokenizer`. Received: sequence_length={value!r:.60}"
            )
        # Other preprocessors may have the same tokenizer. Once built, Keras
        # tracks no new layers.
        made = self.tokenizer.with_length(value)
        object.__setattr__(self, "_tokenizer", made)

    def __call__(self, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        if self.buckets is None:
            return made
        x, *labels = made if isinstance(made, tuple) else (made,)
        x = shortened(x, self.buckets)
        return (x, *labels) if labels else x

    def targets(self, y, batched=True):
        """Convert labels to the targets of the task's loss.

        Args:
            y: labels, in a form that the subclass documents.
            batched: bool, whether `y` has a batch axis.

        Returns:
            Array of targets.
        """
        raise MissingMethod(type(self).__name__, "targets")

    def numpy_targets(
        self, function, y, batched=True, dtype="float32", shape=()
    ):
        """Compute targets by a NumPy function, also inside `tf.data` graphs.

        Args:
            function: callable of the labels as a NumPy array that returns an
                array with one target per sample.
            y: labels; in `fit` a tensor of TensorFlow.
            batched: bool, whether `y` has a batch axis.
            dtype: str, dtype of the returned array.
            shape: tuple, shape of the target of a sample; by default a number.

        Returns:
            Array of targets, in a graph a tensor.

        Example:

        ```python
        def targets(self, y, batched=True):
            return self.numpy_targets(np.log1p, y, batched)
        ```
        """
        batch = tf_graph.static_shape(y)[:1] if batched else ()
        return apply_numpy(function, [y], (dtype, (*batch, *shape)))

    def call(self, x, y=None, sample_weight=None):
        features, batched = self.features_of(x)
        if y is not None:
            y = self.targets(y, batched)
        return keras.utils.pack_x_y_sample_weight(features, y, sample_weight)

    def features_of(self, x, encode=None):
        """Compute the features of raw inputs.

        Args:
            x: dict of `"images"` and `"text"`, as the class describes.
            encode: method of the tokenizer for the text; by default its
                `encode`.

        Returns:
            `(features, batched)`: a dict of arrays, and whether they have a
            batch axis.
        """
        kept = {"images": "image_states", "text": "text_states"}
        check_keys(x, [k for k, name in kept.items() if name not in x])
        if "image_states" in x:
            images, axes = x["image_states"], 2
        else:
            images, axes = self.image_converter(x["images"]), 3
        if "text_states" in x:
            text = kept_states.text_features(x["text_states"])
        else:
            text = self.text_features(x["text"], encode)
        batch = tuple(text["padding_mask"].shape)[:-1]
        wanted, found = batch + self.pictures, tuple(images.shape)[:-axes]
        if len(found) != len(wanted) or sizes_differ(found, wanted):
            raise ValueError(
                "`images` and `text` must have the same number of items, both "
                f"single or both in lists. Received: images of batch shape "
                f"{found}, which must be {wanted}"
            )
        made = {"images": images, **text}
        return {name: made[name] for name in self.features}, bool(batch)

    def text_features(self, text, encode=None):
        """Compute the features of the text.

        Args:
            text: a string, or a list or tensor of strings.
            encode: as `features_of`.

        Returns:
            dict of int32 arrays, with a batch axis for several texts.
        """
        made = (encode or self.tokenizer.encode)(text)
        made["segment_ids"] = made["token_ids"] * 0
        return {k: v for k, v in made.items() if k in self.features}

    def get_config(self):
        names = ("features", "buckets", *self.config_arguments)
        return super().get_config() | {n: getattr(self, n) for n in names}

    @classmethod
    def from_preset(
        cls,
        preset,
        image_size=None,
        image_mode=None,
        sequence_length=None,
        revision=None,
        **kwargs,
    ):
        """Open the preprocessor of a preset.

        Args:
            preset, revision: as `BridgeTowerVQA.from_preset`.
            image_size, image_mode: values in place of the saved `image_size`
                and `mode` of the image converter.
            sequence_length: int, tokens in each text in place of the saved
                number.
            **kwargs: constructor values that replace the saved ones.

        Returns:
            A preprocessor of this class.

        Raises:
            TypeError: an unknown keyword.
            ValueError: a value that this preprocessor does not use, or that
                belongs to a part that was passed.
        """
        check_keywords(cls, kwargs, (*OF_PREPROCESSORS, *OF_PRESETS))
        given = {
            "tokenizer": {"sequence_length": sequence_length},
            "image_converter": {"image_size": image_size, "mode": image_mode},
        }
        for part, values in given.items():
            given[part] = {k: v for k, v in values.items() if v is not None}
            missing = getattr(cls, f"{part}_cls") is None
            if given[part] and (missing or part in kwargs):
                raise ValueError(
                    f"{sorted(given[part])} must be left out, or be set in the "
                    f"`{part}` that you pass. Received: {given[part]}"
                )
        folder = registry.open_preset(preset, revision)
        config, parts = {}, {}
        if folder.has(CONFIG):
            saved, config = folder.spec(CONFIG, BridgeTowerPreprocessor)
            parts = {part: config.pop(part, None) for part in given}
            if issubclass(saved, cls):
                cls = saved
            else:
                # Only the parts of another task's preprocessor are used.
                config = {}
        made = {}
        for part, values in given.items():
            part_cls = getattr(cls, f"{part}_cls")
            if part_cls is not None and part not in kwargs:
                spec = parts.get(part)
                made[part] = part_cls.from_folder(folder, spec, **values)
        with folder.reading(CONFIG):
            configs.check_values(config)
            configs.check_own_file(config, CONFIG, ())
        return folder.create(
            CONFIG, lambda values: cls(**values), {**config, **made}, kwargs
        )


def check_keys(x, keys):
    """Reject raw inputs that are not a dict with these keys."""
    if isinstance(x, dict) and set(keys) <= set(x):
        return
    given = list(x) if isinstance(x, dict) else type(x)
    hints = [
        f"Rename {name!r} to {_RENAMED[name]!r}. "
        for name in _RENAMED
        if isinstance(x, dict) and name in x and _RENAMED[name] not in x
    ]
    raise ValueError(
        f"`x` must be a dict with the keys {' and '.join(map(repr, keys))}. "
        f"{''.join(hints)}Received: x={given}"
    )


# Usual keys of other libraries and data sets.
_RENAMED = {
    **dict.fromkeys(("image", "picture", "pixel_values"), "images"),
    **dict.fromkeys(("texts", "caption", "question", "questions"), "text"),
}


def shortened(features, buckets):
    """Remove columns in which no text of the batch has a token.

    Args:
        features: dict of arrays or tensors, `"padding_mask"` among them.
        buckets: tuple of rising ints, the numbers of columns to choose from.
    """

    def width(mask):
        longest = mask.sum(axis=-1).max(initial=0)
        fitting = (n for n in buckets if n >= longest)
        return np.int32(min(next(fitting, mask.shape[-1]), mask.shape[-1]))

    stop = apply_numpy(width, [features["padding_mask"]], ("int32", ()))

    def cut(value):
        # States have an axis behind that of the tokens.
        return value[:, :stop] if are_states(value) else value[..., :stop]

    return {
        name: cut(value) if name in TOKEN_FEATURES else value
        for name, value in features.items()
    }


class Draws:
    """Numbers batches, and seeds the random draws of each.

    A batch with a number, `x["step"]`, always gets the same draws, on every
    machine and after every restart. Other batches are numbered as they come.

    Args:
        seed: int. The same seed gives the same draws.

    Call arguments:
        function: callable that takes a seed for `np.random.default_rng`,
            then arrays, and returns one array for each of `specs`.
        step: int scalar, the number of the batch, or None.
        inputs: list of arrays, or tensors in a graph.
        *specs: as `apply_numpy`.

    Returns:
        The result of `function`; in a graph tensors of these specs.
    """

    def __init__(self, seed):
        self.seed = seed
        self._count = itertools.count()

    def __call__(self, function, step, inputs, *specs):
        def draw(step, *arrays):
            if step < 0:
                step = next(self._count)
            return function([self.seed, int(step)], *arrays)

        # -1 means a batch without a number.
        step = -1 if step is None else step
        return apply_numpy(draw, [step, *inputs], *specs)
