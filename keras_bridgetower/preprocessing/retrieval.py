"""Preprocessors of retrieval, contrastive training and judged lists."""

import warnings
import zlib

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import is_integer
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.list_losses import PADDING
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.preprocessor import Draws
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import static_shape


def as_image_ids(ids):
    """Convert image ids to int32, the same in every batch and on every machine.

    Integers that fit are unchanged. Larger ones and strings become the CRC-32
    of their text; two names collide once in four billion.

    Args:
        ids: ints or strings `(batch,)`: a list, an array, or a tensor in a
            graph.

    Returns:
        int32 array `(batch,)`; in a graph a tensor.

    Raises:
        ValueError: ids of another type, or not one axis.

    Example:

    ```python
    as_image_ids(["a.jpg", "b.jpg", "a.jpg"])  # First and last are equal.
    ```
    """
    return apply_numpy(_image_ids, [ids], ("int32", static_shape(ids)))


def _image_ids(ids):
    array = np.asarray(ids)
    values = array.reshape(-1).tolist()
    kinds = all(isinstance(v, (str, bytes)) or is_integer(v) for v in values)
    if array.ndim != 1 or not kinds:
        raise ValueError(
            "Image ids must be integers or strings (batch,). Received: shape "
            f"{array.shape}, dtype {array.dtype}"
        )
    return np.array([_image_id(value) for value in values], "int32")


def _image_id(value):
    if is_integer(value) and -(2**31) <= value < 2**31:
        return value
    text = value if isinstance(value, bytes) else str(value).encode()
    # CRC-32 is unsigned, int32 is not.
    return zlib.crc32(text) - 2**31


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerRetrievalPreprocessor(BridgeTowerPreprocessor):
    """Features for matching, and in training the pairs of an objective.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.
        objective: str, one of `"random_negatives"`, `"hard_negatives"`,
            `"ranking"` and `"ranking_and_matching"`, as in
            `BridgeTowerRetrieval`.
        seed: int. The same seed gives the same draws.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`. `x["step"]`, an int,
            may number the batch: then its draws are always the same. `fit`
            numbers batches by the steps of training, `evaluate` from 0;
            otherwise they are numbered as they come.
        y: image ids `(batch,)`, ints or strings, of a whole batch, from which
            the objective draws; pairs with equal ids match. Or a dict
            `{"match": 0 or 1 (batch,)}` of labeled pairs: then nothing is
            drawn, and an `"image_id"` beside it is ignored.

    Returns:
        Features; with ids `(features, labels)`, the features with the drawn
        values: `"match"` int32 `(batch,)`, or `"image_id"` int32 `(batch,)`
        and `"negative_places"` float32 `(batch, 2)`, the places of the
        negatives among the others by similarity, or `"false_texts"` int32
        `(batch, 15)`, their distances in rows; and the labels int32
        `(batch,)`, for hard negatives a dict of `"itm"` `(batch, 3)` and
        `"itc"` `(batch,)`, for ranking and matching of `"rank"` and `"itm"`
        `(batch,)`. With labeled pairs `(features, match)`.

    Raises:
        ValueError: an unknown objective, no ids, ids of another type or
            number, draws for a single sample, labels other than 0 and 1, or
            labeled pairs for an objective that draws its own.

    Example:

    ```python
    preprocessor = BridgeTowerRetrievalPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    images = np.zeros((4, 64, 64, 3), "uint8")
    x, y = preprocessor(
        {"images": images, "text": ["a", "b", "c", "d"]}, y=[0, 1, 2, 3])
    y.sum()  # 2 of 4 texts keep their image.
    ```

    Source: matching in BridgeTower's pre-training and retrieval.
    """

    reads_step = pairs_rows = True
    config_arguments = ("objective", "seed")

    def __init__(
        self,
        tokenizer,
        image_converter,
        objective="random_negatives",
        seed=0,
        **kwargs,
    ):
        super().__init__(tokenizer, image_converter, **kwargs)
        self._pair_objective = pair_objectives.make_objective(objective)
        self.objective = objective
        self.seed = seed
        self.draws = Draws(seed)

    def call(self, x, y=None, sample_weight=None):
        features, batched = self.features_of(x)
        if y is not None:
            batch = tuple(features["padding_mask"].shape)[:-1]
            if isinstance(y, dict) and "match" in y:
                y = self.targets(y["match"], batched)
                _check_number(y, batch)
            else:
                drawn, y = self._draw(y, x.get("step"), batch)
                features = {**features, **drawn}
        return keras.utils.pack_x_y_sample_weight(features, y, sample_weight)

    def targets(self, y, batched=True):
        if not self._pair_objective.takes_labels:
            raise ValueError(
                "`y` must hold image ids, and no 'match', with "
                f"objective={self.objective!r}."
            )
        return apply_numpy(_checked_match, [y], ("int32", static_shape(y)))

    def _draw(self, y, step, batch):
        ids = as_image_ids(y["image_id"] if isinstance(y, dict) else y)
        _check_number(ids, batch)
        objective = self._pair_objective
        specs = objective.specs(batch)
        *drawn, labels = self.draws(self._draw_pairs, step, [ids], *specs)
        drawn = dict(zip(objective.drawn, drawn, strict=True))
        targets = objective.targets(labels, {"image_id": ids, **drawn})
        return drawn, pair_objectives.only_or_all(targets)

    def _draw_pairs(self, seed, ids):
        if len(ids) < 2:
            warnings.warn("A batch of one pair has no negatives.", stacklevel=2)
        return self._pair_objective.draw(seed, ids)


def _checked_match(match):
    match = np.asarray(match)
    if match.dtype.kind not in "biu" or not np.isin(match, (0, 1)).all():
        raise ValueError(
            f"`match` must hold integers 0 and 1. Received: {match!r:.200}"
        )
    return match.astype("int32")


def _check_number(y, batch):
    """Check that there is one id or label for each text."""
    shape = static_shape(y)
    # In a graph a size may be unknown: None.
    if None not in (*shape, *batch) and shape != batch:
        raise ValueError(
            "`y` must hold one image id, or one label, for each text. "
            f"Received: shape {shape}, not {batch}"
        )


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerContrastivePreprocessor(BridgeTowerPreprocessor):
    """Features and image ids for contrastive training.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`.
        y: image ids `(batch,)`, ints or strings, equal if texts and pictures
            match; or None: then only the given pairs match.

    Returns:
        Features, or `(features, image ids int32 (batch,))`. The first batch
        of one pair is warned about: it has no negatives.

    Raises:
        ValueError: ids of another kind.

    Example:

    ```python
    preprocessor = BridgeTowerContrastivePreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    images = np.zeros((2, 64, 64, 3), "uint8")
    x, y = preprocessor({"images": images, "text": ["a dot", "a line"]},
                        y=["1.png", "2.png"])
    ```

    Source: the image ids of BridgeTower's retrieval fine-tuning.
    """

    _warned = False

    def targets(self, y, batched=True):
        if not batched:
            y = y if hasattr(y, "shape") else np.asarray(y)
            return as_image_ids(y[None])[0]

        def counted_ids(y):
            ids = _image_ids(y)
            self.warn_if_alone(len(ids))
            return ids

        return apply_numpy(counted_ids, [y], ("int32", static_shape(y)))

    def warn_if_alone(self, pairs):
        """Warn, once, of a training batch of one pair."""
        if pairs == 1 and not self._warned:
            self._warned = True
            warnings.warn(
                "A batch of one pair has no negatives: its contrastive loss "
                "is 0 and the model learns nothing from it.",
                stacklevel=2,
            )


# The largest grade of a judged list.
HIGHEST = 30


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerListRankingPreprocessor(BridgeTowerPreprocessor):
    """Features and grades of judged lists: a text and its pictures.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.
        list_size: int, pictures of a list.
        labels: `"grades"`, or `"scores"` of a teacher.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`, but `"images"` are
            lists of `list_size` pictures for each text, or an array
            `(batch, list_size, H, W, 3)`.
        y: grades `(batch, list_size)`: how well each picture fits, from 0 to
            30, at least one of a list above 0. The loss and the metric use
            `2 ** grade`, so 0 to 4 are usual. To fill up a shorter list,
            repeat a picture with the grade -1, which is ignored. Scores of a
            teacher are any numbers, NaN for padding.

    Returns:
        Features, with `"images"` float32 `(batch, list_size, S, S, 3)`, or
        `(features, grades float32 (batch, list_size))`.

    Raises:
        ValueError: lists of another size, or other grades.

    Example:

    ```python
    preprocessor = BridgeTowerListRankingPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa", list_size=2)
    image = np.zeros((64, 64, 3), "uint8")
    x = {"images": [[image, image]], "text": ["a red circle"]}
    x, y = preprocessor(x, y=[[1, 0]])
    x["images"].shape  # (1, 2, 64, 64, 3)
    ```
    """

    config_arguments = ("list_size", "labels")

    def __init__(
        self, tokenizer, image_converter, list_size=8, labels="grades", **kwargs
    ):
        super().__init__(tokenizer, image_converter, **kwargs)
        check_count("list_size", list_size)
        check_choice("labels", labels, ("grades", "scores"))
        self.labels = labels
        self.list_size = int(list_size)
        self.pictures = (self.list_size,)

    def targets(self, y, batched=True):
        batch = static_shape(y)[:1] if batched else ()
        spec = "float32", (*batch, self.list_size)
        return apply_numpy(lambda y: self._checked(y, len(spec[1])), [y], spec)

    def _checked(self, y, axes):
        grades = np.asarray(y)
        lists = grades.ndim == axes and grades.shape[-1] == self.list_size
        if lists and grades.dtype.kind in "biuf":
            grades = grades.astype("float32")
            if self.labels == "scores":
                if np.isfinite(grades).any(-1).all():
                    return grades
                raise ValueError(
                    "`y` must hold a teacher's scores, at least one finite in "
                    f"each list. Received: {y!r:.200}"
                )
            known = ((grades >= 0) & (grades <= HIGHEST)) | (grades == PADDING)
            if known.all() and (grades > 0).any(-1).all():
                return grades
        raise ValueError(
            f"`y` must hold {self.list_size} grades for each text, from 0 to "
            f"{HIGHEST} and one of them above 0, or -1 for padding. Received: "
            f"{y!r:.200}"
        )
