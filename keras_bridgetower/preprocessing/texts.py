"""Checks texts that a user passes, and cuts long ones."""

import dataclasses
import warnings

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count

# The sign of a hidden token in a text, the same for every tokenizer.
MASK_TOKEN = "<mask>"
# What Unicode calls white space, and so the `\s` of the `tokenizers` library;
# Python's own idea of it has four characters more.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


# Of one text. A model reads some hundred tokens; all others would be made for
# nothing, at 200 bytes each.
MOST_CHARACTERS = 100_000


def checked_texts(texts, name="text"):
    """Return one text or several as a list of strings.

    Args:
        texts: string or UTF-8 bytes, or a list or array of them.
        name: str, the argument's name in errors.

    Returns:
        `(list of str, whether it was a single text)`.

    Raises:
        ValueError: a text is empty, is not text, holds a NUL character or has
            more than 100,000 characters.
    """
    if not isinstance(texts, (str, bytes, list, tuple)):
        texts = np.asarray(texts).tolist()
    if not isinstance(texts, (list, tuple)):
        return [_check_text(texts, name)], True
    named = enumerate(texts)
    return [_check_text(text, f"{name}[{i}]") for i, text in named], False


def split_at_masks(text):
    """Split a text at each `<mask>`.

    As in RoBERTa, white space before a mask belongs to it.

    Args:
        text: str.

    Returns:
        list of str, one more than there are masks.
    """
    *before, last = text.split(MASK_TOKEN)
    return [*(part.rstrip(WHITE_SPACE) for part in before), last]


def kept_lengths(lengths, room):
    """Return how many tokens of each part remain; the longest is cut first.

    Args:
        lengths: sequence of int, tokens of the parts.
        room: int, tokens that all may have together.

    Returns:
        list of int.
    """
    kept = list(lengths)
    shortest_first = sorted(range(len(kept)), key=kept.__getitem__)
    for done, part in enumerate(shortest_first):
        kept[part] = min(kept[part], room // (len(kept) - done))
        room -= kept[part]
    return kept


def _check_text(text, name):
    problem = _problem(text)
    if problem:
        # The `repr` of a whole text may be as long as it is.
        start = text[:200] if isinstance(text, (str, bytes)) else text
        raise ValueError(
            f"`text` must {problem}. Received: {name}={start!r:.200}"
        )
    return text.decode("utf-8") if isinstance(text, bytes) else text


def _problem(text):
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        if not isinstance(text, str):
            return "be one string, or a flat list or array of strings"
        text.encode("utf-8")
    except UnicodeError:
        return "be UTF-8 bytes, or a string without lone surrogates"
    if len(text) > MOST_CHARACTERS:
        return f"have at most {MOST_CHARACTERS:,} characters"
    if not text.strip():
        return "not be empty"
    if "\0" in text:
        return "not contain NUL characters"
    return None


# Which of the tokens of a text that is too long are read.
_START = {"refuse": True, "warn": True, "cut_end": True, "cut_start": False}
LONG_TEXTS = tuple(_START)


@dataclasses.dataclass(frozen=True)
class LongTexts:
    """The number of tokens that are read, and a rule for longer texts.

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
            f"texts[{first}] has {counts[first] + 2} tokens, but "
            f"sequence_length={self.sequence_length}"
        )
        if self.rule == "warn":
            warnings.warn(
                f"{len(long)} of {len(counts)} texts cut at their end: {told}.",
                stacklevel=2,
            )
            return
        raise ValueError(
            "`texts` must not be longer than what is read, or pass another "
            f"`long_texts`. Received: {told}"
        )
