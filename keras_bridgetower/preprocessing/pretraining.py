"""Features and labels for all objectives of pre-training."""

import zlib

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.preprocessing.masked_lm import hide_tokens
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.preprocessor import Draws
from keras_bridgetower.preprocessing.retrieval import as_image_ids
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import shape_of

OBJECTIVES = ("mlm", "itm", "itc")
NEGATIVES = ("random_negatives", "hard_negatives")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerPretrainingPreprocessor(BridgeTowerPreprocessor):
    """Features and labels for several objectives at once.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        objectives: tuple out of `"mlm"`, `"itm"`, `"itc"`.
        negatives: which pairs matching sees: `"random_negatives"` or
            `"hard_negatives"` (see `objectives`; these need `"itc"`).
        seed: int, seed of masks and pairs.
        rate: float, share of tokens to mask.
        max_masks: int, slots for masked tokens in each text; by default as
            many as can ever be masked.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x: dict of `"images"` and `"text"`, a batch, and optionally `"step"`,
            the number of the batch: then the draws depend on it and on
            `seed` alone. `fit` numbers batches by the steps of training,
            `evaluate` from 0.
        y: image ids `(batch,)`, ints or strings; by default equal pictures
            have equal ids.
        sample_weight: passed through.

    Returns:
        `(features, labels)`. Features: those of `BridgeTowerPreprocessor`,
        `"masked_token_ids"` int32 `(batch, T)` and `"mask_positions"` int32
        `(batch, M)`, and what the negatives need. Labels, a dict of the
        objectives: masked tokens int32 `(batch, M)` with -100 in slots that
        are left over, matches int32, and image ids int32 `(batch,)`.

    Raises:
        ValueError: values out of range, or a single sample: negatives come
            from the batch.

    Example:

    ```python
    preprocessor = BridgeTowerPretrainingPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    images = np.random.randint(0, 256, (2, 64, 64, 3), dtype="uint8")
    x, y = preprocessor({"images": images, "text": ["a dot", "a line"]})
    y["mlm"].shape, y["itm"].shape  # (2, 14), (2,)
    ```

    Source: BridgeTower (AAAI 2023), pre-training; `objectives` names the
    places where negatives differ.
    """

    reads_step = True
    config_arguments = ("objectives", "negatives", "seed", "rate", "max_masks")

    def __init__(
        self,
        tokenizer,
        image_converter,
        objectives=OBJECTIVES,
        negatives="random_negatives",
        seed=0,
        rate=0.15,
        max_masks=None,
        **kwargs,
    ):
        super().__init__(tokenizer, image_converter, **kwargs)
        self.objectives = checked_objectives(objectives, negatives)
        self.negatives = negatives
        self.seed = seed
        self.rate = rate
        self.max_masks = max_masks
        self.pair_objective = pair_objectives.make_objective(negatives)
        self._draws = {name: Draws(seed + i) for i, name in enumerate(_DRAWS)}
        self._masking = None

    @property
    def pairs_rows(self):
        """Return True if matching is among the objectives."""
        return "itm" in self.objectives

    @property
    def masking(self):
        """Return the rule that hides tokens."""
        # A tokenizer that a preset restores gets its vocabulary later.
        if self._masking is None:
            self._masking = self.tokenizer.masking(
                rate=self.rate, max_masks=self.max_masks
            )
        return self._masking

    def call(self, x, y=None, sample_weight=None):
        features, batched = self.features_of(x)
        if not batched:
            raise ValueError(
                "`x` must be a batch: negatives are other rows of it. Batch "
                "the dataset before it is mapped. Received: a single sample"
            )
        step = x.get("step")
        ids = self._image_ids(features["images"]) if y is None else y
        ids = as_image_ids(ids)
        labels = {"itc": ids}
        if "mlm" in self.objectives:
            (
                features["masked_token_ids"],
                features["mask_positions"],
                labels["mlm"],
            ) = hide_tokens(self.masking, self._draws["mlm"], step, features)
        if "itm" in self.objectives:
            *drawn, labels["itm"] = self._draws["itm"](
                self.pair_objective.draw,
                step,
                [ids],
                *self.pair_objective.specs(shape_of(ids)),
            )
            features |= dict(zip(self.pair_objective.drawn, drawn, strict=True))
        labels = {name: labels[name] for name in self.objectives}
        return keras.utils.pack_x_y_sample_weight(
            features, labels, sample_weight
        )

    def _image_ids(self, images):
        def checksums(images):
            sums = [zlib.crc32(image.tobytes()) for image in images]
            return np.array(sums, "int64")

        return apply_numpy(checksums, [images], ("int64", images.shape[:1]))


_DRAWS = ("mlm", "itm")


def checked_objectives(objectives, negatives):
    """Return the objectives as a tuple.

    Args:
        objectives: sequence out of `OBJECTIVES`.
        negatives: one of `NEGATIVES`.

    Returns:
        tuple of str, in the order of `OBJECTIVES`.

    Raises:
        ValueError: unknown ones, none, or hard negatives without `"itc"`.
    """
    check_choice("negatives", negatives, NEGATIVES)
    given = set(objectives)
    if not given or not given <= set(OBJECTIVES):
        raise ValueError(
            f"`objectives` must be some of {OBJECTIVES}. "
            f"Received: objectives={objectives!r}"
        )
    if (
        "itm" in given
        and not set(pair_objectives.make_objective(negatives).heads) <= given
    ):
        raise ValueError(
            f"`negatives={negatives!r}` are drawn by contrastive scores. Add "
            f"'itc' to `objectives`. Received: objectives={objectives!r}"
        )
    return tuple(name for name in OBJECTIVES if name in given)
