"""Preprocessors of classifiers, VQA and the regressor, with labels."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Set

import keras
import numpy as np

from keras_bridgetower.metrics.vqa import normalize_answer
from keras_bridgetower.metrics.vqa import soft_scores
from keras_bridgetower.objectives.losses import check_scores
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.preprocessor import check_keys

# In the order of their ids in SNLI-VE and the authors' code. The order of SNLI
# in Hugging Face's data sets is the reverse.
ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")
# In the order of their ids, spelled as in the files of NLVR2.
TRUTH_VALUES = ("False", "True")


def checked_answers(answers, name="answers"):
    """Return names of classes as a list of distinct strings.

    Args:
        answers: iterable of str, in an order.
        name: str, the argument's name in errors.
    """
    unordered = isinstance(answers, (str, Mapping, Set))
    names = answers if isinstance(answers, Iterable) and not unordered else ()
    # JSON does not save NumPy's strings.
    names = [str(name) if isinstance(name, str) else None for name in names]
    if not names or None in names or len(set(names)) < len(names):
        raise ValueError(
            f"`{name}` must be a list, in the order of the logits, of distinct "
            "strings; sort a dict to ids by `sorted(ids, key=ids.get)`. "
            f"Received: {name}={answers!r:.200}"
        )
    return names


class ClassIds:
    """Converts labels, ids or names, to class ids.

    Args:
        names: list of str, the classes in the order of their ids.
        kinds: str, NumPy's letters of the dtypes that are ids: `"iu"` for
            integers, `"biu"` if bools are ids too.

    Attributes:
        ids: dict from names to ids.

    Call arguments:
        y: ids or names, `(batch,)`, or a single one.
        batched: bool, whether `y` has a batch axis.

    Returns:
        int32 ids of the shape of `y`.

    Raises:
        ValueError: an unknown id or name, or labels of another form.

    Example:

    ```python
    ids = ClassIds(["no", "yes"])
    ids(["yes", "no"]), ids(np.array([1, 0]))  # [1, 0], [1, 0]
    ```
    """

    def __init__(self, names, kinds="iu"):
        self.names = list(names)
        self.kinds = kinds
        self.ids = {name: i for i, name in enumerate(self.names)}

    def __call__(self, y, batched=True):
        y = np.asarray(y)
        if y.ndim != int(batched) or y.dtype.kind not in self.kinds + "USO":
            raise ValueError(
                "`y` must be ids or names, one for each sample. "
                f"Received: shape {y.shape}, dtype {y.dtype}"
            )
        ids = [self.label_id(value) for value in y.reshape(-1).tolist()]
        return np.array(ids, "int32").reshape(y.shape)

    def label_id(self, value):
        """Return the id of a class, given by its id or its name."""
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, int) and 0 <= value < len(self.names):
            return int(value)
        if value not in self.ids:
            raise ValueError(
                f"`y` must hold ids or names of {self.names[:5]}, "
                f"{len(self.names)} in all. Received: y={value!r}"
            )
        return self.ids[value]


class _ClassPreprocessor(BridgeTowerPreprocessor):
    """Abstract: features, and labels as class ids by `_class_ids`."""

    def targets(self, y, batched=True):
        return self.numpy_targets(
            lambda y: self._class_ids(y, batched), y, batched, "int32"
        )


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerEntailmentPreprocessor(_ClassPreprocessor):
    """Features and class ids for visual entailment.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`; the text is the
            hypothesis alone.
        y: ids `(batch,)`, 0 for contradiction, 1 for neutral, 2 for
            entailment, or these names.

    Returns:
        Features, or `(features, ids int32 (batch,))`.

    Raises:
        ValueError: an unknown id or name, or labels of another form.

    Example:

    ```python
    preprocessor = BridgeTowerEntailmentPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    image = np.zeros((64, 64, 3), "uint8")
    x = {"images": image, "text": "the shape is red."}
    x, y = preprocessor(x, y="entailment")  # y = 2
    ```

    Source: SNLI-VE (Xie et al., 2019); BridgeTower's `snli` data set.
    """

    _class_ids = ClassIds(ENTAILMENT_LABELS)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerNLVR2Preprocessor(_ClassPreprocessor):
    """Features and truth values of statements about two pictures.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`, but `"images"` are
            pairs, the left picture first: a list of pairs, or an array
            `(batch, 2, H, W, 3)`.
        y: truth values `(batch,)`: 0 and 1, bools, or "False" and "True".

    Returns:
        Features, with `"images"` float32 `(batch, 2, S, S, 3)`, or
        `(features, ids int32 (batch,))`.

    Raises:
        ValueError: pictures that are not in pairs, or other labels.

    Example:

    ```python
    preprocessor = BridgeTowerNLVR2Preprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    image = np.zeros((64, 64, 3), "uint8")
    x = {"images": [image, image], "text": "both shapes are red."}
    x, y = preprocessor(x, y="True")
    x["images"].shape, y  # (2, 64, 64, 3), 1
    ```

    Source: NLVR2 (Suhr et al., 2019).
    """

    pictures = (2,)
    _class_ids = ClassIds(TRUTH_VALUES, kinds="biu")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerImageClassifierPreprocessor(_ClassPreprocessor):
    """Pictures and class ids for the image tower alone.

    Args:
        image_converter, features, **kwargs: as in `BridgeTowerPreprocessor`.
        labels: list of str, the classes in the order of the logits.

    Call arguments:
        x: dict of `"images"`, in any form that the image converter reads.
        y: ids `(batch,)` or names of `labels`, or None.
        sample_weight: passed through.

    Returns:
        dict of `"images"` float32 `(batch, S, S, 3)`, or
        `(features, ids int32 (batch,))`. Without batch axis for a single
        picture.

    Raises:
        ValueError: a missing key, unknown labels, or unreadable pictures.

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
    config_arguments = ("labels",)

    def __init__(self, image_converter, labels, features=None, **kwargs):
        super().__init__(None, image_converter, features, **kwargs)
        self.labels = checked_answers(labels, "labels")
        self._class_ids = ClassIds(self.labels)

    def features_of(self, x):
        check_keys(x, ("images",))
        images = self.image_converter(x["images"])
        return {"images": images}, len(images.shape) > 3


class _TextPreprocessor(BridgeTowerPreprocessor):
    """Abstract: texts, or pairs of texts, for the text tower alone."""

    image_converter_cls = None
    default_features = ("token_ids", "padding_mask")

    def features_of(self, x):
        check_keys(x, ("text",))
        if "second_text" in x:
            encoded = self.tokenizer.encode_pairs(x["text"], x["second_text"])
        else:
            encoded = self.tokenizer.encode(x["text"])
        encoded["segment_ids"] = encoded["token_ids"] * 0
        batched = len(encoded["token_ids"].shape) > 1
        return {name: encoded[name] for name in self.features}, batched


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTextClassifierPreprocessor(
    _TextPreprocessor, _ClassPreprocessor
):
    """Texts, or pairs of texts, and class ids for the text tower alone.

    Args:
        tokenizer, features, **kwargs: as in `BridgeTowerPreprocessor`.
        labels: list of str, the classes in the order of the logits.

    Call arguments:
        x: dict of `"text"`, a string or a list or string tensor, and, for
            tasks about two texts, the same number of `"second_text"`.
        y: ids `(batch,)` or names of `labels`, or None.
        sample_weight: passed through.

    Returns:
        dict of `"token_ids"` and `"padding_mask"` int32
        `(batch, sequence_length)`, or `(features, ids int32 (batch,))`.
        Without batch axis for a single text.

    Raises:
        ValueError: a missing key, unknown labels, unequal counts, or texts
            that the tokenizer rejects.

    Example:

    ```python
    preprocessor = BridgeTowerTextClassifierPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa", labels=["other", "same"])
    x, y = preprocessor({"text": ["a dog"], "second_text": ["a cat"]}, y=[0])
    ```

    Source: GLUE fine-tuning of BridgeTower's text tower.
    """

    config_arguments = ("labels",)

    def __init__(self, tokenizer, labels, features=None, **kwargs):
        super().__init__(tokenizer, None, features, **kwargs)
        self.labels = checked_answers(labels, "labels")
        self._class_ids = ClassIds(self.labels)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTextRegressorPreprocessor(_TextPreprocessor):
    """Texts, or pairs of texts, and numbers for the text tower alone.

    Args:
        tokenizer, features, **kwargs: as in `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as in `BridgeTowerTextClassifierPreprocessor`.
        y: finite numbers `(batch,)`, or None.

    Returns:
        Features, or `(features, numbers float32 (batch, 1))`.

    Raises:
        ValueError: labels of another form, or `x` that
            `BridgeTowerTextClassifierPreprocessor` rejects.

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
        def numbers(y):
            y = np.asarray(y)
            right = y.ndim == int(batched) and y.dtype.kind in "iuf"
            if not right or not np.isfinite(y).all():
                raise ValueError("`y` must be one finite number each.")
            return y.astype("float32")[..., None]

        return self.numpy_targets(numbers, y, batched, shape=(1,))


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerVQAPreprocessor(BridgeTowerPreprocessor):
    """Features and soft scores for visual question answering.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.
        answers: list of str, the classes in the order of the logits.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`.
        y: one of
            soft scores `(batch, answers)` in 0..1, a column for each answer;
            class ids `(batch,)`; answer strings `(batch,)`; or the answers of
            ten people `(batch, 10)` as typed. These are normalized as in the
            official evaluation ("Yes." to "yes"). Answers outside the list
            are dropped; the others score by how many people agree.

    Returns:
        Features, or `(features, soft scores float32 (batch, answers))`.

    Raises:
        ValueError: labels of another form, scores outside 0..1, an id or a
            single answer outside the list.

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

    config_arguments = ("answers",)

    def __init__(self, tokenizer, image_converter, answers, **kwargs):
        super().__init__(tokenizer, image_converter, **kwargs)
        self.answers = checked_answers(answers)
        self._class_ids = ClassIds(self.answers)
        ids = self._class_ids.ids
        # The id of each normalized answer. Of several answers with the same
        # normal form, the one spelled so is used, or else the first.
        spelled = [(normalize_answer(a), i) for a, i in ids.items()]
        self._spelled = {
            **dict(reversed(spelled)),
            **{a: i for a, i in spelled if ids.get(a) == i},
        }

    def targets(self, y, batched=True):
        def scores(y):
            return self._soft_scores(y, batched)

        shape = (len(self.answers),)
        return self.numpy_targets(scores, y, batched, shape=shape)

    def _soft_scores(self, y, batched):
        y = np.asarray(y)
        rows = y if batched else y[None]
        width = len(self.answers)
        text = rows.dtype.kind in "USO"
        if not text and rows.ndim == 2 and rows.shape[1] == width:
            check_scores("y", rows)
            return (rows if batched else rows[0]).astype("float32")
        if text and rows.ndim == 2 and rows.shape[1] == 10:
            scores = np.stack([self._agreement(row) for row in rows])
        elif rows.ndim == 1 and (text or rows.dtype.kind in "iu"):
            ids = [self._class_ids.label_id(value) for value in rows.tolist()]
            scores = np.eye(width, dtype="float32")[ids]
        else:
            raise ValueError(
                f"`y` must be soft scores (batch, {width}), ids or answers "
                "(batch,), or ten answers each (batch, 10). "
                f"Received: shape {y.shape}, dtype {y.dtype}"
            )
        return scores if batched else scores[0]

    def _agreement(self, ten):
        scores = np.zeros(len(self.answers), "float32")
        ten = [v.decode() if isinstance(v, bytes) else v for v in ten.tolist()]
        # The evaluator replaces line breaks before it removes punctuation.
        ten = [" ".join(answer.split()) for answer in ten]
        for answer, score in soft_scores(ten).items():
            if answer in self._spelled:
                scores[self._spelled[answer]] = score
        return scores
