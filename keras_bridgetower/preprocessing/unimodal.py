"""Features and labels for one tower alone: pictures, texts, pairs of texts."""

import keras
import numpy as np

from keras_bridgetower.preprocessing.class_ids import ClassIds
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.preprocessor import check_keys
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import shape_of
from keras_bridgetower.preprocessing.vqa import checked_answers

TEXT_FEATURES = ("token_ids", "padding_mask")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerImageClassifierPreprocessor(BridgeTowerPreprocessor):
    """Pictures and labels for the image tower alone.

    Args:
        image_converter: a `BridgeTowerImageConverter`.
        labels: list of str, the classes in the order of the logits.
        features: tuple of the features to make.
        **kwargs: `name`.

    Call arguments:
        x: dict of `"images"`, whatever the image converter reads.
        y: ids `(batch,)` or names of `labels`, or None.
        sample_weight: passed through.

    Returns:
        dict of `"images"` float32 `(batch, S, S, 3)`, or
        `(features, ids int32 (batch,))`. Without batch axis for a single
        picture.

    Raises:
        ValueError: a missing key, labels outside the list, or pictures that
            cannot be read.

    Example:

    ```python
    preprocessor = BridgeTowerImageClassifierPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa", labels=["cat", "dog"])
    image = np.zeros((64, 64, 3), "uint8")
    x, y = preprocessor({"images": [image, image]}, y=["dog", "cat"])
    ```

    Source: BridgeTower's fine-tuning of the image tower on CIFAR.
    """

    tokenizer_cls = None
    default_features = ("images",)

    def __init__(self, image_converter, labels, features=None, **kwargs):
        super().__init__(None, image_converter, features, **kwargs)
        self.labels = checked_answers(labels, "labels")
        self._class_ids = ClassIds(self.labels)

    def features_of(self, x):
        check_keys(x, ("images",))
        images = self.image_converter(x["images"])
        return {"images": images}, len(images.shape) > 3

    def targets(self, y, batched=True):
        return self._class_ids(y, batched)

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}


class _TextPreprocessor(BridgeTowerPreprocessor):
    """Abstract: texts, or pairs of texts, for the text tower alone."""

    image_converter_cls = None
    default_features = TEXT_FEATURES

    def features_of(self, x):
        check_keys(x, ("text",))
        if "second_text" in x:
            made = self.tokenizer.encode_pairs(x["text"], x["second_text"])
        else:
            made = self.tokenizer.encode(x["text"])
        made["segment_ids"] = made["token_ids"] * 0
        batched = len(made["token_ids"].shape) > 1
        return {name: made[name] for name in self.features}, batched


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTextClassifierPreprocessor(_TextPreprocessor):
    """Texts, or pairs of texts, and labels for the text tower alone.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        labels: list of str, the classes in the order of the logits.
        features: tuple of the features to make.
        **kwargs: `name`.

    Call arguments:
        x: dict of `"text"`, a string or a list or string tensor, and, for
            tasks about two texts, as many of `"second_text"`.
        y: ids `(batch,)` or names of `labels`, or None.
        sample_weight: passed through.

    Returns:
        dict of `"token_ids"` and `"padding_mask"` int32
        `(batch, sequence_length)`, or `(features, ids int32 (batch,))`.
        Without batch axis for a single text.

    Raises:
        ValueError: a missing key, labels outside the list, unequal counts, or
            what the tokenizer refuses.

    Example:

    ```python
    preprocessor = BridgeTowerTextClassifierPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa", labels=["other", "same"])
    x, y = preprocessor({"text": ["a dog"], "second_text": ["a cat"]}, y=[0])
    ```

    Source: GLUE fine-tuning of BridgeTower's text tower.
    """

    def __init__(self, tokenizer, labels, features=None, **kwargs):
        super().__init__(tokenizer, None, features, **kwargs)
        self.labels = checked_answers(labels, "labels")
        self._class_ids = ClassIds(self.labels)

    def targets(self, y, batched=True):
        return self._class_ids(y, batched)

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTextRegressorPreprocessor(_TextPreprocessor):
    """Texts, or pairs of texts, and numbers for the text tower alone.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        features: tuple of the features to make.
        **kwargs: `name`.

    Call arguments:
        x, sample_weight: as `BridgeTowerTextClassifierPreprocessor`.
        y: finite numbers `(batch,)`, or None.

    Returns:
        Features, or `(features, numbers float32 (batch, 1))`.

    Raises:
        ValueError: labels of another form, or what
            `BridgeTowerTextClassifierPreprocessor` refuses of `x`.

    Example:

    ```python
    preprocessor = BridgeTowerTextRegressorPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    x = {"text": ["a dog"], "second_text": ["a cat"]}
    x, y = preprocessor(x, y=[2.5])
    ```

    Source: STS-B of GLUE.
    """

    def __init__(self, tokenizer, features=None, **kwargs):
        super().__init__(tokenizer, None, features, **kwargs)

    def targets(self, y, batched=True):
        batch = shape_of(y)[:1] if batched else ()
        return apply_numpy(
            lambda y: _numbers(y, batched), [y], ("float32", (*batch, 1))
        )


def _numbers(y, batched):
    y = np.asarray(y)
    if y.ndim != int(batched) or y.dtype.kind not in "iuf":
        raise ValueError(
            "`y` must be one number for each sample. Received: y of shape "
            f"{y.shape} and dtype {y.dtype}"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"`y` must be finite. Received: y={y!r:.200}")
    return y.astype("float32")[..., None]
