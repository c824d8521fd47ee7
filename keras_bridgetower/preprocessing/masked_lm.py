"""Features and labels for masked language modeling."""

import keras
import numpy as np

from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.preprocessor import Draws
from keras_bridgetower.preprocessing.texts import MASK_TOKEN
from keras_bridgetower.preprocessing.texts import checked_texts

# Label of a slot without a hidden token, as in transformers.
IGNORED = -100


def hide_tokens(masking, draws, step, features):
    """Hide tokens of a text or a batch of texts.

    Args:
        masking: a `Masking`.
        draws: `Draws`, which seeds it.
        step: number of the batch, or None.
        features: dict of `"token_ids"` and `"padding_mask"`.

    Returns:
        `(token_ids, mask_positions, labels)`: int32 `(batch, T)` with hidden
        tokens, int32 `(batch, M)` where they are, and int32 `(batch, M)` what
        stood there, `IGNORED` in slots that are left over.
    """

    def hide(seed, ids, padding_mask):
        made = masking(ids, padding_mask, seed)
        labels = np.where(made["mask_weights"] > 0, made["mask_ids"], IGNORED)
        return (
            made["token_ids"],
            made["mask_positions"],
            labels.astype("int32"),
        )

    ids, padding_mask = features["token_ids"], features["padding_mask"]
    slots = (*ids.shape[:-1], masking.max_masks)
    return draws(
        hide,
        step,
        [ids, padding_mask],
        ("int32", tuple(ids.shape)),
        ("int32", slots),
        ("int32", slots),
    )


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerMaskedLMPreprocessor(BridgeTowerPreprocessor):
    """Features with hidden tokens, and the hidden tokens as labels.

    Tokens are hidden by the tokenizer's rule at every call, anew for each
    batch: RoBERTa's `TokenMasking`, or of BERT's whole words
    (`WholeWordMasking`). Pairs of picture and text stay as they are.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        rate: float, share of tokens to hide.
        max_masks: int, M: slots for hidden tokens in each text. By default as
            many as a text can have, so that none is lost; fewer save memory
            in the logits.
        seed: int. The same seed gives the same masks.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x: dict of `"images"` and `"text"`, as `BridgeTowerPreprocessor`.
            `"step"`, an optional int scalar, numbers the batch: the same
            number gives the same masks. `fit` numbers batches by the steps
            of training, `evaluate` from 0; otherwise they are counted.
        y: None.
        sample_weight: passed through.

    Returns:
        `(features, labels)`: the features have `"mask_positions"` int32
        `(batch, M)` besides, and labels are int32 `(batch, M)`, -100 in slots
        without a hidden token, whose position is 0. Without batch axis for a
        single sample.

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
        # Refuses values out of range now; the vocabulary may come later, with
        # the assets.
        TokenMasking(
            mask_token_id=0,
            special_token_ids=(),
            vocabulary_size=1,
            sequence_length=tokenizer.sequence_length,
            rate=rate,
            max_masks=max_masks,
        )
        self.rate = rate
        self.max_masks = max_masks
        self.seed = seed
        self._draws = Draws(seed)

    def call(self, x, y=None, sample_weight=None):
        if y is not None:
            raise ValueError(
                "`y` must not be given: the labels are the tokens that this "
                "preprocessor hides. Pass `x` alone. "
                f"Received: y={y!r:.200}"
            )
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
            ValueError: a text without `<mask>`, or one whose masks are cut
                off.
        """
        features = self.text_features(text, self.tokenizer.encode_with_masks)
        batched = features["token_ids"].ndim > 1
        ids = np.atleast_2d(features["token_ids"])
        blank = ids == self.tokenizer.mask_token_id
        counts = blank.sum(axis=1)
        texts, _ = checked_texts(text)
        for i, (given, count) in enumerate(zip(texts, counts, strict=True)):
            name = f"text[{i}]" if batched else "text"
            if MASK_TOKEN not in given:
                raise ValueError(
                    f"`text` must hold {MASK_TOKEN} where a token is asked "
                    f"for. Received: {name}={given!r:.200}"
                )
            if given.count(MASK_TOKEN) > count:
                raise ValueError(
                    f"`text` must hold every {MASK_TOKEN} within the "
                    f"{self.tokenizer.sequence_length} tokens of "
                    "`sequence_length`. Shorten it. "
                    f"Received: {name}={given!r:.200}"
                )
        places = np.argsort(~blank, axis=1, kind="stable")[:, : counts.max()]
        used = np.arange(places.shape[1]) < counts[:, None]
        positions = np.where(used, places, 0).astype("int32")
        positions = positions if batched else positions[0]
        return {**features, "mask_positions": positions}, batched
