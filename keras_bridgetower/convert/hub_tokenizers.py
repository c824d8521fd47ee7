"""Reads the tokenizer of a KerasHub preset."""

import pathlib
import tempfile

import keras_hub.models as hub
import numpy as np

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.convert import json_tokenizers
from keras_bridgetower.convert.tokenizers import TEXT_LENGTH
from keras_bridgetower.convert.tokenizers import read_tokens
from keras_bridgetower.encoders.registry import entry_of
from keras_bridgetower.encoders.registry import text_length
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.registry import write_json

# KerasHub's names of files, and those of `transformers`. The name of
# `vocabulary.spm` depends on the encoder.
NAMES = {
    "vocabulary.json": "vocab.json",
    "merges.txt": "merges.txt",
    "vocabulary.txt": "vocab.txt",
}
# Both tokenizers must make the same of it.
PROBE = "The 2 quick Foxes' red-brown fur, isn't it?"


def read(preset, encoder, sequence_length=None):
    """Open the tokenizer of a KerasHub preset.

    KerasHub's vocabulary is read by the rules of `transformers`, as of the
    encoder's own files. They differ in rare signs; ids of a plain text are
    compared.

    Args:
        preset: str, the name or path of the preset.
        encoder: its text encoder.
        sequence_length: int, or None.

    Returns:
        `PackedTokenizer`.

    Raises:
        ConversionError: there is no tokenizer, it is of another kind, or it is
            not the encoder's.
        ValueError: `sequence_length` is more than the encoder reads.
    """
    entry, most = entry_of(encoder), text_length(encoder)
    length = sequence_length
    if length is None:
        length = most if entry.fixed_length else min(TEXT_LENGTH, most)
    check_at_most("sequence_length", length, most, "positions")
    wrong = []
    try:
        theirs = hub.Tokenizer.from_preset(preset)
        found = _converted(theirs, entry.files[0].tokens, length)
        wrong = _differences(found, theirs, encoder)
    except Exception as error:  # Files and classes of KerasHub may be any.
        wrong.append(f"{error!s:.300}")
    if wrong:
        raise ConversionError(
            f"A preset with a {type(encoder).__name__} must hold the tokenizer "
            "with which it was trained. For another one pass `preprocessor`.",
            preset,
            wrong,
        )
    return found


def _converted(theirs, tokens, length):
    """Return a tokenizer of KerasHub as one of this library."""
    names = dict(NAMES)
    for name, _ in json_tokenizers.FILES.get(tokens.kind, ()):
        if name.endswith(".model"):
            names["vocabulary.spm"] = name
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        theirs.save_assets(folder)
        for name in theirs.file_assets:
            (folder / name).rename(folder / names[name])
        if tokens.kind == "wordpiece":
            values = {"do_lower_case": theirs.lowercase}
            write_json(folder, "tokenizer_config.json", values)
        return read_tokens(folder, tokens, length)


def _differences(ours, theirs, encoder):
    """List what is not the same in a tokenizer and in one of KerasHub."""
    size = ours.vocabulary_size()
    # ELECTRA has the other name.
    rows = getattr(encoder, "vocabulary_size", None) or encoder.vocab_size
    wrong = [] if size <= rows else [f"{size} tokens, {rows} in the encoder"]
    (made,), expected = ours.token_lists([PROBE]), theirs(PROBE)
    expected = np.asarray(expected).tolist()
    if made != expected:
        wrong.append(f"{PROBE!r}: {made}, but {expected} of KerasHub")
    return wrong
