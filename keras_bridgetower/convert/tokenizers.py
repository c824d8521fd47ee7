"""Reads tokenizers of `transformers` folders and of KerasHub's presets."""

import pathlib
import tempfile

import keras_hub.models as hub
import numpy as np

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import json_tokenizers
from keras_bridgetower.convert.json_tokenizers import read_if_there
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tokenizer_rules import FAMILIES
from keras_bridgetower.encoders import registry as encoders
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting
from keras_bridgetower.presets.registry import write_json

# Tokens in a text: `max_text_len` of the published models and the authors.
TEXT_LENGTH = 50


def open_folder(folder, sequence_length=None):
    """Open the tokenizer of a folder with a text encoder.

    `unimodal.tokenizer` documents its arguments, result and errors.
    """
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    known = encoders.files_by_type("text")
    name = configurations.require_type(config, path, list(known))
    cls, files = known[name]
    config = configurations.part_of(config, files.parts)
    with converting("A configuration must be readable", path):
        most = _most_tokens(config, files)
        usual = _usual_length(folder, most, cls, files.tokens)
    length = usual if sequence_length is None else sequence_length
    check_at_most("sequence_length", length, most, "positions")
    found = read(folder, name, length)
    if found is None:
        raise ConversionError(
            f"A folder of {name} must hold the files of its tokenizer, such as "
            "tokenizer.json. Fetch them.",
            folder,
        )
    _check_encoder(found, files.tokens.ids, config, path)
    return found


def _most_tokens(config, files):
    """Return the number of tokens that an encoder reads at most."""
    rows = config.get("max_position_embeddings")
    positions = rows - files.before(config) if rows else files.tokens.positions
    return positions + files.tokens.adds_start


def _usual_length(folder, most, cls, tokens):
    """Return the default number of tokens in a text."""
    files = ("tokenizer_config.json", "sentence_bert_config.json")
    config, sentences = (read_if_there(folder / name) for name in files)
    given = (config.get("model_max_length"), sentences.get("max_seq_length"))
    given = [int(n) + tokens.adds_start for n in given if n]
    if encoders.entries("text")[cls].fixed_length:
        return most
    return min(TEXT_LENGTH, most, *given)


def _check_encoder(tokenizer, keys, config, path):
    """Check that a tokenizer is that of the encoder in `config.json`.

    Args:
        tokenizer: `PackedTokenizer`.
        keys: tuple of str, as `Tokens.ids`.
        config: dict, the values of the file `path`.
    """
    size = tokenizer.vocabulary_size()
    rows = config.get("vocab_size", size)
    wrong = []
    if type(rows) is not int or rows < size:
        wrong.append(f"{size} tokens, vocab_size={rows!r:.50}")
    start, pad, end, *_ = tokenizer.special_token_ids
    ids = {"bos_token_id": start, "pad_token_id": pad, "eos_token_id": end}
    wrong += [
        f"{key}={config[key]!r:.50}, but {ids[key]} in the tokenizer"
        for key in keys
        if config.get(key) is not None and config[key] != ids[key]
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer must be the encoder's, with at most as many tokens "
            "and the same special ones.",
            path,
            wrong,
        )


def read(folder, kind, sequence_length):
    """Read the tokenizer of a folder.

    Args:
        folder: path of the folder.
        kind: str, the model type of the text encoder.
        sequence_length: int, number of tokens in a text.

    Returns:
        A tokenizer, or None if the folder has no tokenizer files.

    Raises:
        ConversionError: files are damaged, contradict each other, or have
            unsupported settings.
    """
    _, files = encoders.files_by_type("text")[kind]
    return read_tokens(pathlib.Path(folder), files.tokens, sequence_length)


def read_tokens(folder, tokens, sequence_length):
    """Read the tokenizer that `tokens`, a `Tokens`, describes; as `read`."""
    with converting("A tokenizer must be readable", folder):
        return json_tokenizers.read(folder, tokens, sequence_length)


# Both tokenizers must give it the same ids.
PROBE = "The 2 quick Foxes' red-brown fur, isn't it?"


def open_preset(preset, encoder, sequence_length=None):
    """Open the tokenizer of a KerasHub preset, as a `PackedTokenizer`.

    KerasHub's vocabulary is read by the rules of `transformers`, as from the
    encoder's own files. They differ in rare characters; the ids of a plain text
    are compared.

    Args:
        preset: str, the name or path of the preset.
        encoder: its text encoder.
        sequence_length: int, or None.

    Raises:
        ConversionError: there is no tokenizer, it is of another kind, or it is
            not the encoder's.
    """
    entry, most = encoders.entry_of(encoder), encoders.text_length(encoder)
    length = sequence_length
    if length is None:
        length = most if entry.fixed_length else min(TEXT_LENGTH, most)
    check_at_most("sequence_length", length, most, "positions")
    wrong = []
    try:
        theirs = hub.Tokenizer.from_preset(preset)
        found = _converted(theirs, entry.files[0].tokens, length)
        wrong = _differences(found, theirs, encoder)
    except Exception as error:  # KerasHub may raise any.
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
    known = FAMILIES[tokens.kind].files
    pieces = next((name for name in known if name.endswith(".model")), "")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        theirs.save_assets(folder)
        for name in theirs.file_assets:
            # `transformers` has `vocab.json`, `vocab.txt` or one of `pieces`.
            new = name.replace("vocabulary.spm", pieces)
            (folder / name).rename(folder / new.replace("vocabulary", "vocab"))
        if tokens.kind == "wordpiece":
            values = {"do_lower_case": theirs.lowercase}
            write_json(folder, "tokenizer_config.json", values)
        return read_tokens(folder, tokens, length)


def _differences(ours, theirs, encoder):
    """List the differences of a tokenizer from one of KerasHub."""
    size = ours.vocabulary_size()
    # ELECTRA has the other name.
    rows = getattr(encoder, "vocabulary_size", None) or encoder.vocab_size
    wrong = [] if size <= rows else [f"{size} tokens, {rows} in the encoder"]
    (made,), expected = ours.token_lists([PROBE]), theirs(PROBE)
    expected = np.asarray(expected).tolist()
    if made != expected:
        wrong.append(f"{PROBE!r}: {made}, but {expected} of KerasHub")
    return wrong
