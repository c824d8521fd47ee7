"""Texts that are longer than what a model reads: refused, or cut as asked."""

import dataclasses
import warnings

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.texts import checked_texts

# Which of the tokens of a text that is too long are read.
_START = {"refuse": True, "warn": True, "cut_end": True, "cut_start": False}
LONG_TEXTS = tuple(_START)


@dataclasses.dataclass(frozen=True)
class LongTexts:
    """How many tokens of a text are read, and what becomes of longer texts.

    Args:
        sequence_length: int, tokens of each text, those at its start and end
            included.
        rule: `"refuse"`: an error names them; `"warn"`: they are cut at their
            end, and a warning says so; `"cut_end"`, `"cut_start"`: they are
            cut there.

    Raises:
        ValueError: another rule, or no positive integer.
    """

    sequence_length: int
    rule: str = "refuse"

    def __post_init__(self):
        check_count("sequence_length", self.sequence_length)
        check_choice("long_texts", self.rule, LONG_TEXTS)

    def encode(self, tokenizer, texts):
        """Token ids and padding mask, as the tokenizer's `encode`.

        Args:
            tokenizer: a `PackedTokenizer`.
            texts: a string, or a list or array of strings.

        Returns:
            dict of int32 arrays `(texts, sequence_length)`, without the first
            axis for one string.

        Raises:
            ValueError: a text is too long and the rule is `"refuse"`, or
                the tokenizer refuses it.
        """
        checked, single = checked_texts(texts)
        room = self.sequence_length - 2
        rows = tokenizer.token_lists(checked)
        self._tell([len(row) for row in rows], room)
        start, pad, end, *_ = tokenizer.special_token_ids
        ids = np.full((len(rows), self.sequence_length), pad, "int32")
        for packed, row in zip(ids, rows, strict=True):
            first = 0 if _START[self.rule] else max(len(row) - room, 0)
            kept = [start, *row[first : first + room], end]
            packed[: len(kept)] = kept
        ids = ids[0] if single else ids
        return {"token_ids": ids, "padding_mask": (ids != pad).astype("int32")}

    def _tell(self, counts, room):
        long = [i for i, count in enumerate(counts) if count > room]
        if not long or self.rule.startswith("cut"):
            return
        first = long[0]
        told = (
            f"texts[{first}] has {counts[first] + 2} tokens with those at "
            f"start and end, but sequence_length={self.sequence_length}"
        )
        if self.rule == "warn":
            warnings.warn(
                f"{len(long)} of {len(counts)} texts cut at their end: {told}.",
                stacklevel=2,
            )
            return
        raise ValueError(
            "`texts` must not be longer than what is read. Pass a larger "
            "`sequence_length`, or long_texts='cut_end' to read the start of "
            f"each, or 'cut_start' to read its end. Received: {told}"
        )
