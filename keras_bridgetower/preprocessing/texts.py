"""Checks and cuts the texts of users."""

import warnings

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count

# A hidden token in a text, the same for every tokenizer.
MASK_TOKEN = "<mask>"
# White space of Unicode, as `\s` in the `tokenizers` library. Python's white
# space has four more characters.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
# In one text. A model reads a few hundred tokens; others would take 200 bytes
# each for nothing.
MOST_CHARACTERS = 100_000


def checked_texts(texts, name="text"):
    """Return `(texts, single)`: a list of strings, and True for a single text.

    Args:
        texts: string or UTF-8 bytes, or a list or array of them.
        name: str, the argument's name in errors.

    Raises:
        ValueError: a text is empty, is not text, has a NUL character or has
            more than 100,000 characters.
    """
    if not isinstance(texts, (str, bytes, list, tuple)):
        texts = np.asarray(texts).tolist()
    if not isinstance(texts, (list, tuple)):
        return [_check_text(texts, name)], True
    named = enumerate(texts)
    return [_check_text(text, f"{name}[{i}]") for i, text in named], False


def split_at_masks(text):
    """Split a text at each `<mask>`, and remove white space before it."""
    *before, last = text.split(MASK_TOKEN)
    return [*(part.rstrip(WHITE_SPACE) for part in before), last]


def kept_lengths(lengths, room):
    """Return how many tokens of each part to keep, at most `room` together.

    The longest part is cut first.
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
    return "not contain NUL characters" if "\0" in text else None


LONG_TEXTS = ("refuse", "warn", "cut_end", "cut_start")


def encode_long(tokenizer, texts, sequence_length, rule="refuse"):
    """Return token ids and padding mask, as the tokenizer's `encode`.

    Args:
        tokenizer: a `PackedTokenizer`.
        texts: a string, or a list or array of strings.
        sequence_length: int, tokens of each text, including those at its
            start and end.
        rule: for longer texts. `"refuse"`: raise an error; `"warn"`: cut
            their end, and warn; `"cut_end"`, `"cut_start"`: cut it silently.

    Returns:
        dict of int32 arrays `(texts, sequence_length)`, without the first
        axis for one string.

    Raises:
        ValueError: a text is too long and the rule is `"refuse"`, the
            tokenizer rejects it, or another rule or length.
    """
    check_count("sequence_length", sequence_length)
    check_choice("long_texts", rule, LONG_TEXTS)
    checked, _ = checked_texts(texts)
    room = sequence_length - 2
    rows = tokenizer.token_lists(checked)
    long = [i for i, row in enumerate(rows) if len(row) > room]
    if long and not rule.startswith("cut"):
        example = (
            f"texts[{long[0]}] has {len(rows[long[0]]) + 2} tokens, but "
            f"sequence_length={sequence_length}"
        )
        if rule == "refuse":
            raise ValueError(
                "`texts` must not be longer than `sequence_length`, or pass "
                f"another `long_texts`. Received: {example}"
            )
        warnings.warn(
            f"{len(long)} of {len(rows)} texts cut at their end: {example}.",
            stacklevel=2,
        )
    part = slice(-room, None) if rule == "cut_start" else slice(room)
    cut = iter([row[part] for row in rows])
    ids, mask = tokenizer._pack(
        lambda texts: [next(cut) for _ in texts], sequence_length, texts
    )
    return {"token_ids": ids, "padding_mask": mask}
