"""Preprocessors: strings and pictures to the backbone's inputs."""

import keras
import keras_hub
import numpy as np

from keras_bridgetower.backbone import BridgeTowerBackbone
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import in_tf_graph
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.known import PresetsOf

FEATURES = ("images", "token_ids", "padding_mask")
# Share of full score for an answer that 0, 1, 2, ... of ten people gave.
AGREEMENT = (0.0, 0.3, 0.6, 0.9, 1.0)


class BridgeTowerPreprocessor(keras_hub.models.Preprocessor):
    """Abstract: makes features, and leaves the labels to `targets`.

    Works eagerly (NumPy out), inside `tf.data.Dataset.map` (tensors out) and
    inside a task's `fit`, `evaluate` and `predict`.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        features: tuple of the features to make: images, token_ids,
            padding_mask, and segment_ids (zeros) for text encoders that
            declare them, as BERT.
        **kwargs: `name`.

    Call arguments:
        x: dict of `"images"`, whatever the image converter reads, and
            `"text"`, a string or a list or string tensor; as many of one as
            of the other.
        y: labels as `targets` takes them, or None.
        sample_weight: passed through.

    Returns:
        dict of `"images"` float32 `(batch, S, S, 3)`, `"token_ids"` and
        `"padding_mask"` int32 `(batch, sequence_length)`, without batch axis
        for a single sample; with labels a tuple `(x, y)` or
        `(x, y, sample_weight)`.

    Raises:
        ValueError: missing keys, unequal counts, or what tokenizer and image
            converter refuse.
    """

    backbone_cls = BridgeTowerBackbone
    tokenizer_cls = BridgeTowerTokenizer
    image_converter_cls = BridgeTowerImageConverter
    presets = PresetsOf()

    def __init__(self, tokenizer, image_converter, features=FEATURES, **kwargs):
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.image_converter = image_converter
        self.features = tuple(features)

    def targets(self, y, batched=True):
        """Labels as the task's loss takes them.

        Args:
            y: labels, in a form that the subclass documents.
            batched: bool, whether `y` has a batch axis.

        Returns:
            Array of targets.
        """
        raise TypeError(
            "`BridgeTowerPreprocessor` is abstract. Use the preprocessor of a "
            f"task. Received: preprocessor={type(self).__name__}"
        )

    def call(self, x, y=None, sample_weight=None):
        if not isinstance(x, dict) or not {"images", "text"} <= set(x):
            raise ValueError(
                "`x` must be a dict with the keys 'images' and 'text'. "
                f"Received: x={list(x) if isinstance(x, dict) else type(x)}"
            )
        text = self.tokenizer.encode(x["text"])
        images = self.image_converter(x["images"])
        batch = tuple(text["token_ids"].shape)[:-1]
        image_batch = tuple(images.shape)[:-3]
        # In a graph a size may be unknown: None.
        known = None not in batch + image_batch
        if len(batch) != len(image_batch) or known and batch != image_batch:
            raise ValueError(
                "`images` and `text` must be of the same number, both single "
                "or both in lists; repeat what belongs to several. Received: "
                f"images of batch shape {image_batch}, text of {batch}"
            )
        made = {
            "images": images,
            **text,
            "segment_ids": text["token_ids"] * 0,
        }
        if y is not None:
            y = self.targets(y, batched=bool(batch))
        return keras.utils.pack_x_y_sample_weight(
            {name: made[name] for name in self.features}, y, sample_weight
        )

    def get_config(self):
        config = super().get_config()
        config["features"] = self.features
        return config

    @classmethod
    def from_preset(cls, preset, image_size=None, **kwargs):
        """The preprocessor of a preset.

        Args:
            preset: name, folder or handle, as `BridgeTowerVQA.from_preset`.
            image_size: int, another side of the images than the saved one.
            **kwargs: constructor values that replace the saved ones.

        Returns:
            A preprocessor of this class.
        """
        folder = registry.resolve(preset, wait=False)
        if image_size is not None:
            kwargs["image_converter"] = cls.image_converter_cls.from_preset(
                folder, image_size=image_size
            )
        return super().from_preset(folder, **kwargs)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerVQAPreprocessor(BridgeTowerPreprocessor):
    """Features and soft scores for visual question answering.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        answers: list of str, the classes in the order of the logits.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as `BridgeTowerPreprocessor`.
        y: soft scores `(batch, answers)`, class ids `(batch,)`, answer strings
            `(batch,)`, or the ten answers of ten people `(batch, 10)`, of
            which those outside the list are left out and the others score by
            how many agree.

    Returns:
        Features, or `(features, soft scores float32 (batch, answers))`.

    Raises:
        ValueError: labels of another form, an id or a single answer outside
            the list.

    Example:

    ```python
    preprocessor = BridgeTowerVQAPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    image = np.zeros((64, 64, 3), "uint8")
    x, y = preprocessor({"images": image, "text": "what is it?"}, y="blue")
    ```

    Source: the VQAv2 rule of soft scores, 0, 0.3, 0.6, 0.9, 1 for 0 to 4
    and more equal answers of ten.
    """

    def __init__(self, tokenizer, image_converter, answers, **kwargs):
        super().__init__(tokenizer, image_converter, **kwargs)
        self.answers = checked_answers(answers)
        self._index = {answer: i for i, answer in enumerate(self.answers)}

    def targets(self, y, batched=True):
        if not in_tf_graph():
            return self._soft_scores(y, batched)
        import tensorflow as tf

        y = tf.convert_to_tensor(y)
        scores = tf.numpy_function(
            lambda y: self._soft_scores(y, batched), [y], tf.float32
        )
        batch = y.shape[:1] if batched else []
        scores.set_shape([*batch, len(self.answers)])
        return scores

    def _soft_scores(self, y, batched):
        y = y if isinstance(y, (str, list, tuple)) else np.asarray(y)
        y = np.asarray(y)
        rows = y if batched else y[None]
        width = len(self.answers)
        text = rows.dtype.kind in "USO"
        if not text and rows.ndim == 2 and rows.shape[1] == width:
            return (rows if batched else rows[0]).astype("float32")
        if text and rows.ndim == 2 and rows.shape[1] == 10:
            scores = np.stack([self._agreement(row) for row in rows])
        elif rows.ndim == 1 and (text or rows.dtype.kind in "iu"):
            scores = np.eye(width, dtype="float32")[
                [self._class_of(value) for value in rows.tolist()]
            ]
        else:
            raise ValueError(
                f"`y` must be soft scores (batch, {width}), class ids "
                "(batch,), answers (batch,) or ten answers each (batch, 10). "
                f"Received: y of shape {y.shape} and dtype {y.dtype}"
            )
        return scores if batched else scores[0]

    def _class_of(self, value):
        if isinstance(value, int) and 0 <= value < len(self.answers):
            return value
        value = value.decode() if isinstance(value, bytes) else value
        if value not in self._index:
            raise ValueError(
                f"`y` must hold ids below {len(self.answers)} or answers of "
                "the list, such as "
                f"{', '.join(map(repr, self.answers[:5]))}. Clean the data or "
                f"extend `answers`. Received: y={value!r}"
            )
        return self._index[value]

    def _agreement(self, ten):
        scores = np.zeros(len(self.answers), "float32")
        ten = [v.decode() if isinstance(v, bytes) else v for v in ten.tolist()]
        for answer in set(ten) & set(self._index):
            agree = min(ten.count(answer), len(AGREEMENT) - 1)
            scores[self._index[answer]] = AGREEMENT[agree]
        return scores

    def get_config(self):
        config = super().get_config()
        config["answers"] = self.answers
        return config


def checked_answers(answers):
    """The answers as a list of distinct strings.

    Args:
        answers: sequence of str.

    Returns:
        list of str.

    Raises:
        ValueError: not that.
    """
    answers = list(answers) if not isinstance(answers, str) else answers
    if (
        not answers
        or isinstance(answers, str)
        or not all(isinstance(a, str) for a in answers)
        or len(set(answers)) < len(answers)
    ):
        raise ValueError(
            "`answers` must be a list of distinct strings, at least one. "
            f"Received: answers={answers!r:.200}"
        )
    return answers
