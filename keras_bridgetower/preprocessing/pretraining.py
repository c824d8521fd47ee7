"""Features and labels for masked language modeling and pre-training."""

import zlib

import keras
import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.checks import are_states
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.preprocessor import Draws
from keras_bridgetower.preprocessing.retrieval import as_image_ids
from keras_bridgetower.preprocessing.texts import MASK_TOKEN
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import static_shape

OBJECTIVES = ("mlm", "itm", "itc")
NEGATIVES = ("random_negatives", "hard_negatives")
# Label of an empty slot, as in transformers.
IGNORED = -100


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerPretrainingPreprocessor(BridgeTowerPreprocessor):
    """Features and labels for several objectives at once.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.
        objectives: tuple of some of `"mlm"`, `"itm"`, `"itc"`.
        negatives: the negative pairs of matching: `"random_negatives"` or
            `"hard_negatives"` (see `objectives`; these need `"itc"`).
        seed: int, seed of masks and pairs.
        rate: float, share of tokens to mask.
        max_masks: int, slots for masked tokens in each text; by default as
            many as can ever be masked.

    Call arguments:
        x: dict of `"images"` and `"text"`, a batch, and optionally `"step"`,
            the number of the batch, on which the draws then depend. `fit`
            numbers batches by the steps of training, `evaluate` from 0.
        y: image ids `(batch,)`, ints or strings; by default equal pictures
            have equal ids.
        sample_weight: passed through.

    Returns:
        `(features, labels)`. Features: those of `BridgeTowerPreprocessor`,
        `"masked_token_ids"` int32 `(batch, T)`, `"mask_positions"` int32
        `(batch, M)`, and those of the negatives. Labels, a dict of the
        objectives: masked tokens int32 `(batch, M)` with -100 in empty slots,
        matches int32, and image ids int32 `(batch,)`.

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

    Source: BridgeTower (AAAI 2023), pre-training; `objectives` lists the
    differences of negatives.
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
        self._draws = {"mlm": Draws(seed), "itm": Draws(seed + 1)}

    @property
    def pairs_rows(self):
        """Return True if matching is among the objectives."""
        return "itm" in self.objectives

    @property
    def masking(self):
        """Return the rule that hides tokens."""
        return self.tokenizer.masking(rate=self.rate, max_masks=self.max_masks)

    def call(self, x, y=None, sample_weight=None):
        features, batched = self.features_of(x)
        if not batched:
            raise ValueError("`x` must be a batch. Received: a single sample")
        step = x.get("step")
        ids = self._image_ids(features["images"]) if y is None else y
        ids = as_image_ids(ids)
        labels = {"itc": ids}
        if "mlm" in self.objectives:
            masked, places, labels["mlm"] = hide_tokens(
                self.masking, self._draws["mlm"], step, features
            )
            features |= {"masked_token_ids": masked, "mask_positions": places}
        if "itm" in self.objectives:
            pairs, draws = self.pair_objective, self._draws["itm"]
            specs = pairs.specs(static_shape(ids))
            *drawn, labels["itm"] = draws(pairs.draw, step, [ids], *specs)
            features |= dict(zip(pairs.drawn, drawn, strict=True))
        labels = {name: labels[name] for name in self.objectives}
        return keras.utils.pack_x_y_sample_weight(
            features, labels, sample_weight
        )

    def _image_ids(self, images):
        def checksums(images):
            sums = [zlib.crc32(image.tobytes()) for image in images]
            return np.array(sums, "int64")

        return apply_numpy(checksums, [images], ("int64", images.shape[:1]))


def checked_objectives(objectives, negatives):
    """Return the objectives as a tuple, in the order of `OBJECTIVES`.

    Raises:
        ValueError: unknown or no objectives, unknown negatives, or hard
            negatives without `"itc"`.
    """
    check_choice("negatives", negatives, NEGATIVES)
    given = set(objectives)
    if not given or not given <= set(OBJECTIVES):
        raise ValueError(
            f"`objectives` must be some of {OBJECTIVES}. "
            f"Received: objectives={objectives!r}"
        )
    needed = pair_objectives.make_objective(negatives).heads
    if "itm" in given and not set(needed) <= given:
        raise ValueError(
            f"`objectives` must have 'itc' with negatives={negatives!r}."
        )
    return tuple(name for name in OBJECTIVES if name in given)


def hide_tokens(masking, draws, step, features):
    """Hide tokens of a text or a batch of texts.

    Args:
        masking: a `Masking`.
        draws: `Draws`, which seeds it.
        step: number of the batch, or None.
        features: dict of `"token_ids"` and `"padding_mask"`.

    Returns:
        `(token_ids, mask_positions, labels)`: int32 `(batch, T)` with hidden
        tokens, int32 `(batch, M)`, their places, and int32 `(batch, M)`, the
        hidden tokens, `IGNORED` in empty slots.
    """
    if are_states(features["token_ids"]):
        raise ValueError(
            "`text` must be texts, whose tokens are hidden. Received: kept "
            "states of texts"
        )

    def hide(seed, ids, padding_mask):
        made = masking(ids, padding_mask, seed)
        labels = np.where(made["mask_weights"] > 0, made["mask_ids"], IGNORED)
        labels = labels.astype("int32")
        return made["token_ids"], made["mask_positions"], labels

    ids, padding_mask = features["token_ids"], features["padding_mask"]
    slots = (*ids.shape[:-1], masking.max_masks)
    specs = ("int32", tuple(ids.shape)), ("int32", slots), ("int32", slots)
    return draws(hide, step, [ids, padding_mask], *specs)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerMaskedLMPreprocessor(BridgeTowerPreprocessor):
    """Features with hidden tokens, and the hidden tokens as labels.

    Each call hides other tokens, by the tokenizer's rule: RoBERTa's
    `TokenMasking`, or BERT's `WholeWordMasking`. Pairs are not changed.

    Args:
        tokenizer, image_converter, **kwargs: as in `BridgeTowerPreprocessor`.
        rate: float, share of tokens to hide.
        max_masks: int, M: slots for hidden tokens in each text. By default
            enough for all; fewer save memory in the logits.
        seed: int. The same seed gives the same masks.

    Call arguments:
        x: dict of `"images"` and `"text"`, as in `BridgeTowerPreprocessor`.
            `"step"`, an optional int scalar, numbers the batch: the same
            number gives the same masks. `fit` numbers batches by the steps
            of training, `evaluate` from 0; otherwise they are counted.
        y: None.
        sample_weight: passed through.

    Returns:
        `(features, labels)`: the features also have `"mask_positions"` int32
        `(batch, M)`, and labels are int32 `(batch, M)`, -100 in slots without
        a hidden token, whose position is 0. Without batch axis for a single
        sample.

    Raises:
        ValueError: labels, values out of range, or inputs
            that `BridgeTowerPreprocessor` rejects.

    Example:

    ```python
    preprocessor = BridgeTowerMaskedLMPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa", max_masks=4)
    image = np.zeros((64, 64, 3), "uint8")
    x, y = preprocessor({"images": image, "text": "a blue circle.", "step": 3})
    x["mask_positions"].shape, y.shape  # (4,), (4,)
    ```

    Source: RoBERTa (Liu et al., 2019); the masking of BridgeTower.
    """

    reads_step = True
    config_arguments = ("rate", "max_masks", "seed")

    def __init__(
        self,
        tokenizer,
        image_converter,
        rate=0.15,
        max_masks=None,
        seed=0,
        **kwargs,
    ):
        super().__init__(tokenizer, image_converter, **kwargs)
        self.rate = rate
        self.max_masks = max_masks
        self.seed = seed
        self._draws = Draws(seed)

    def call(self, x, y=None, sample_weight=None):
        if y is not None:
            raise ValueError("`y` must be None: the labels are hidden tokens.")
        features, _ = self.features_of(x)
        masking = self.tokenizer.masking(
            rate=self.rate, max_masks=self.max_masks
        )
        ids, positions, labels = hide_tokens(
            masking, self._draws, x.get("step"), features
        )
        made = {**features, "token_ids": ids, "mask_positions": positions}
        return keras.utils.pack_x_y_sample_weight(made, labels, sample_weight)

    def text_with_blanks(self, text):
        """Return features of texts that contain `<mask>`.

        Args:
            text: a string or a list of strings; not in a TensorFlow graph.

        Returns:
            `(features, batched)`: those of the text, and `"mask_positions"`
            `(batch, M)`, M the largest number of masks in a text.

        Raises:
            ValueError: a text without `<mask>`, or with masks beyond
                `sequence_length`.
        """
        features = self.text_features(text, self.tokenizer.encode_with_masks)
        batched = features["token_ids"].ndim > 1
        ids = np.atleast_2d(features["token_ids"])
        blank = ids == self.tokenizer.mask_token_id
        counts = blank.sum(axis=1)
        texts, _ = checked_texts(text)
        for i, (given, count) in enumerate(zip(texts, counts, strict=True)):
            if not given.count(MASK_TOKEN) or given.count(MASK_TOKEN) > count:
                raise ValueError(
                    f"`text` must hold {MASK_TOKEN}, within `sequence_length`. "
                    f"Received: text[{i}]={given!r:.200}"
                )
        places = np.argsort(~blank, axis=1, kind="stable")[:, : counts.max()]
        used = np.arange(places.shape[1]) < counts[:, None]
        positions = np.where(used, places, 0).astype("int32")
        positions = positions if batched else positions[0]
        return {**features, "mask_positions": positions}, batched
