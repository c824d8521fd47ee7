"""Reads and checks the files that define a tokenizer."""

import io
import os

from keras_bridgetower.files import read_json
from keras_bridgetower.files import read_text
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

MASK_TOKEN = "<mask>"
# In this order: start, padding, end, unknown, mask.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", MASK_TOKEN)
BERT_SPECIAL_TOKENS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")


def read_vocabulary(vocabulary):
    if not isinstance(vocabulary, dict):
        try:
            vocabulary = dict(read_json(vocabulary, LARGEST_ASSET))
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`vocabulary` must be a dict from token to id, or the path of "
                f"one in JSON. Received: vocabulary={vocabulary!r:.200} "
                f"({error!s:.200})"
            ) from error
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise ValueError(
            f"`vocabulary` must contain {', '.join(SPECIAL_TOKENS)}. "
            f"Received: a vocabulary without {', '.join(missing)}"
        )
    # A gap or a second use of an id would leave the embedding's rows.
    ids = set(vocabulary.values())
    if ids != set(range(len(vocabulary))):
        raise ValueError(
            f"`vocabulary` must use each id from 0 to {len(vocabulary) - 1} "
            f"once. Received: {len(vocabulary)} tokens, {len(ids)} ids"
        )
    return vocabulary


def read_merges(merges):
    if isinstance(merges, (str, os.PathLike)):
        lines = _lines(merges)
        merges = [x for x in lines if x and not x.startswith("#version")]
    pairs = [tuple(x.split(" ") if isinstance(x, str) else x) for x in merges]
    for i, pair in enumerate(pairs):
        # A merge into a special token would let a text spell it.
        if len(pair) != 2 or "".join(pair) in SPECIAL_TOKENS:
            raise ValueError(
                "`merges` must be pairs of tokens with one space between, "
                "none of which makes a special token. Received: "
                f"merges[{i}]={merges[i]!r}"
            )
    return pairs


def read_words(vocabulary):
    if isinstance(vocabulary, (str, os.PathLike)):
        vocabulary = _lines(vocabulary)
    words = list(vocabulary)
    missing = [token for token in BERT_SPECIAL_TOKENS if token not in words]
    if missing or len(set(words)) < len(words):
        problem = f"without {', '.join(missing)}" if missing else "with repeats"
        raise ValueError(
            "`vocabulary` must list each token once, with "
            f"{', '.join(BERT_SPECIAL_TOKENS)} among them. Received: "
            f"{len(words)} tokens {problem}"
        )
    return words


def _lines(path):
    # Tokens may hold other characters at which `str.splitlines` divides.
    text = io.StringIO(read_text(path, LARGEST_ASSET), newline="\n")
    return [line.rstrip("\r\n") for line in text]
