"""Chooses the tokens that masked language modeling hides, and replaces them.

NumPy only, so that it also runs inside `tf.numpy_function`. The same seed gives
the same masks.
"""

import abc
import dataclasses

import numpy as np

from keras_bridgetower.checks import check_at_most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking(abc.ABC):
    """Abstract: hides tokens; a subclass chooses them.

    Of the chosen tokens `mask_share` become the mask token, `random_share` a
    token drawn from the whole vocabulary, including special tokens, and the
    rest remain. Special tokens and padding are never chosen.

    Args:
        mask_token_id: int.
        special_token_ids: ints that are never chosen.
        vocabulary_size: int, ids from which random tokens are drawn.
        sequence_length: int, T: tokens of each text, padding included.
        rate: float, share of tokens to choose.
        mask_share: float.
        random_share: float.
        max_masks: int, M: slots for chosen tokens in each text. By default
            enough for all. Fewer save memory in the logits `(batch, M,
            vocabulary)`; if more tokens are chosen, M of them are drawn.

    Call arguments:
        token_ids: int array `(batch, T)` or `(T,)`.
        padding_mask: int array like `token_ids`, 1 on tokens.
        seed: an argument of `np.random.default_rng`: an int, a list of ints
            such as `[seed, step]`, or a generator. Two threads must not share
            a generator.

    Returns:
        dict of `"token_ids"` int32 like the given ones, and of arrays
        `(batch, M)` or `(M,)`: `"mask_positions"` int32, rising, `"mask_ids"`
        int32, the original tokens there, and `"mask_weights"` float32, 1 for
        a chosen token, 0 for an empty slot, whose position and id are 0.

    Raises:
        ValueError: values out of range, or arrays of another shape.
    """

    mask_token_id: int
    special_token_ids: tuple
    vocabulary_size: int
    sequence_length: int
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    max_masks: int | None = None

    def __post_init__(self):
        ids = tuple(int(i) for i in self.special_token_ids)
        object.__setattr__(self, "special_token_ids", ids)
        shares = self.rate, self.mask_share, self.random_share
        if min(shares) < 0 or max(shares) > 1 or sum(shares[1:]) > 1 + 1e-9:
            raise ValueError(
                "`rate`, `mask_share` and `random_share` must be from 0 to 1, "
                f"the latter two also together. Received: {shares}"
            )
        if self.max_masks is None:
            object.__setattr__(self, "max_masks", self.most_chosen)
        length = self.sequence_length
        check_at_most("max_masks", self.max_masks, length, "tokens")

    @property
    @abc.abstractmethod
    def most_chosen(self):
        """int, the most tokens of one text that can ever be chosen."""

    @abc.abstractmethod
    def choose(self, token_ids, allowed, rng):
        """Draw the tokens to hide, at most `max_masks` in each row.

        Args:
            token_ids: int array `(batch, T)`.
            allowed: bool array `(batch, T)`, neither special nor padding.
            rng: `np.random.Generator`.

        Returns:
            bool array `(batch, T)`.
        """

    def __call__(self, token_ids, padding_mask, seed):
        single = np.ndim(token_ids) == 1
        ids = np.atleast_2d(token_ids).astype("int32")
        rng = np.random.default_rng(seed)
        allowed = np.atleast_2d(padding_mask).astype(bool)
        allowed &= ~np.isin(ids, self.special_token_ids)
        chosen = self.choose(ids, allowed, rng)

        fate = rng.random(ids.shape)
        masked = chosen & (fate < self.mask_share)
        replaced = chosen & ~masked
        replaced &= fate < self.mask_share + self.random_share
        hidden = np.where(masked, self.mask_token_id, ids)
        random_ids = rng.integers(self.vocabulary_size, size=ids.shape)
        hidden = np.where(replaced, random_ids, hidden)

        # Chosen places first, each group in the order of the text.
        places = np.argsort(~chosen, axis=1, kind="stable")[:, : self.max_masks]
        weights = np.take_along_axis(chosen, places, axis=1)
        originals = np.take_along_axis(ids, places, axis=1)
        made = {
            "token_ids": hidden.astype("int32"),
            "mask_positions": np.where(weights, places, 0).astype("int32"),
            "mask_ids": np.where(weights, originals, 0).astype("int32"),
            "mask_weights": weights.astype("float32"),
        }
        if single:
            made = {name: values[0] for name, values in made.items()}
        return made


class TokenMasking(Masking):
    """Chooses each token on its own, as for RoBERTa.

    A text may have no chosen token at all; its weights are then 0.

    Args:
        **kwargs: as `Masking`. By default M is `sequence_length - 2`, all but
            the start and the end token, which every packed text has.

    Example:

    ```python
    masking = TokenMasking(
        mask_token_id=4,
        special_token_ids=[0, 1, 2, 3, 4],
        vocabulary_size=50,
        sequence_length=6,
    )
    made = masking([0, 8, 9, 7, 2, 1], [1, 1, 1, 1, 1, 0], seed=3)
    made["mask_positions"].shape  # (4,)
    ```

    Source: RoBERTa (Liu et al., 2019); the masking of METER and BridgeTower.
    """

    @property
    def most_chosen(self):
        return max(1, self.sequence_length - 2)

    def choose(self, token_ids, allowed, rng):
        draw = np.where(allowed, rng.random(token_ids.shape), 1.0)
        chosen = draw < self.rate
        # The lowest draws are kept; of equal draws, those further left.
        order = np.argsort(draw, axis=1, kind="stable")
        rank = np.argsort(order, axis=1, kind="stable")
        return chosen & allowed & (rank < self.max_masks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeWordMasking(Masking):
    """Chooses all pieces of a word together, as for BERT.

    Words are drawn at random until `rate * T` tokens are reached, at least one;
    a word that would exceed this number is skipped. T includes the padding,
    which is drawn like words and then not hidden. So short texts have few
    masks, or none.

    Args:
        continuation_ids: ints, the pieces that continue a word: those that
            begin with "##" in BERT's vocabulary.
        break_ids: ints, tokens that are not drawn at all: [CLS] and [SEP].
            Other special tokens are drawn, then not hidden.
        **kwargs: as `Masking`. By default M is that number of tokens.

    Example:

    ```python
    masking = WholeWordMasking(
        mask_token_id=4,
        special_token_ids=[0, 1, 2, 3, 4],
        vocabulary_size=50,
        sequence_length=6,
        rate=0.5,
        continuation_ids=[9],
        break_ids=[0, 2],
    )
    masking([0, 8, 9, 7, 6, 2], [1] * 6, seed=0)["mask_positions"].shape  # (3,)
    ```

    Source: the whole-word collator of transformers 4.17, which BridgeTower
    trained with; version 5 replaces every chosen token by the mask.
    """

    continuation_ids: tuple
    break_ids: tuple

    @property
    def most_chosen(self):
        return max(1, round(self.rate * self.sequence_length))

    def choose(self, token_ids, allowed, rng):
        goes_on = np.isin(token_ids, self.continuation_ids)
        candidate = ~np.isin(token_ids, self.break_ids)
        chosen = np.zeros(token_ids.shape, bool)
        for row, more, fits in zip(chosen, goes_on, candidate, strict=True):
            words = []
            for place in np.flatnonzero(fits).tolist():
                if words and more[place]:
                    words[-1].append(place)
                else:
                    words.append([place])
            room = min(self.most_chosen, self.max_masks)
            for i in rng.permutation(len(words)):
                if len(words[i]) <= room:
                    row[words[i]] = True
                    room -= len(words[i])
        return chosen & allowed
