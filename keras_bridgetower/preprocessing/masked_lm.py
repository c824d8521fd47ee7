"""Texts with hidden tokens, and what stood there."""

import numpy as np

from keras_bridgetower.preprocessing.masking import TokenMasking

# Label of a slot without a hidden token, as in transformers.
IGNORED = -100


def masking_of(tokenizer, **values):
    """The rule that hides a tokenizer's tokens.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        **values: `rate`, `max_masks` and others of `TokenMasking`.

    Returns:
        A `TokenMasking`.
    """
    return TokenMasking(
        mask_token_id=tokenizer.mask_token_id,
        special_token_ids=tokenizer.special_token_ids,
        vocabulary_size=tokenizer.vocabulary_size(),
        sequence_length=tokenizer.sequence_length,
        **values,
    )


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
