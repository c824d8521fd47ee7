"""Checks texts that a user passes, and cuts long ones."""

import numpy as np

from keras_bridgetower.preprocessing.tokenizer_files import MASK_TOKEN

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
    """One text or several as a list of strings.

    Args:
        texts: string or UTF-8 bytes, or a list or array of them.
        name: string. What errors call them.

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
    """The parts of a text around each `<mask>`.

    As in RoBERTa, white space before a mask belongs to it.

    Args:
        text: str.

    Returns:
        list of str, one more than there are masks.
    """
    *before, last = text.split(MASK_TOKEN)
    return [*(part.rstrip(WHITE_SPACE) for part in before), last]


def kept_lengths(lengths, room):
    """How many tokens of each part remain: the longest is cut first.

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
        received = f"Received: {name}={_start(text)!r:.200}"
        raise ValueError(f"`text` must {problem}. {received}")
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
        return (
            f"have at most {MOST_CHARACTERS:,} characters, of which a model "
            f"reads the first; cut it, as `text[:{MOST_CHARACTERS}]`. It has "
            f"{len(text):,}"
        )
    if not text.strip():
        return "not be empty"
    if "\0" in text:
        return "not contain NUL characters"
    return None


def _start(text):
    # The `repr` of a whole one may be as long as it is.
    return text[:200] if isinstance(text, (str, bytes)) else text
