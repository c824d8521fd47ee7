"""Reads the tokenizer files of a `transformers` folder."""

import functools
import pathlib

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import json_tokenizers
from keras_bridgetower.convert.json_tokenizers import read_if_there
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.encoders.registry import entries
from keras_bridgetower.encoders.registry import files_by_type
from keras_bridgetower.preprocessing.tokenizer import SPECIAL_TOKENS
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerBertTokenizer
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer
from keras_bridgetower.preprocessing.tokenizer import read_merges
from keras_bridgetower.presets.errors import ConversionError

# Tokens in a text: `max_text_len` of the published models and the authors.
TEXT_LENGTH = 50
# Keys that tell the type of the model in the first versions of tokenizer.json,
# which do not name it.
TYPE_KEYS = {"BPE": "merges", "WordPiece": "max_input_chars_per_word"}
# Settings that RoBERTa's files leave empty: null, false, or `""`.
BPE_SETTINGS = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)


def open_folder(folder, sequence_length=None):
    """Open the tokenizer of a folder with a text encoder.

    Args:
        folder: `pathlib.Path`.
        sequence_length: int, or None.

    Returns:
        `PackedTokenizer`. `unimodal.tokenizer` describes it.

    Raises:
        ConversionError: files are damaged or missing, or the tokenizer is not
            the encoder's.
        ValueError: `sequence_length` is more than the encoder reads.
    """
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    known = files_by_type("text")
    name = configurations.require_type(config, path, list(known))
    cls, files = known[name]
    if files.part:
        config = configurations.nested_values(config, files.part) or config
    try:
        most = _most_tokens(config, files)
        usual = _usual_length(folder, most, cls, files.tokens)
    except Exception as error:  # Damaged values raise any error.
        raise ConversionError(
            f"A configuration must be readable: {error!s:.300}", path
        ) from error
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
    named = config.get("max_position_embeddings")
    positions = named - files.before if named else files.tokens.positions
    return positions + files.tokens.adds_start


def _usual_length(folder, most, cls, tokens):
    """Return the number of tokens in a text that the files give."""
    files = ("tokenizer_config.json", "sentence_bert_config.json")
    config, sentences = (read_if_there(folder / name) for name in files)
    given = (config.get("model_max_length"), sentences.get("max_seq_length"))
    given = [int(n) + tokens.adds_start for n in given if n]
    if entries("text")[cls].fixed_length:
        return most
    return min(TEXT_LENGTH, most, *given)


def _check_encoder(tokenizer, keys, config, path):
    """Check that a tokenizer is that of the encoder in `config.json`.

    Args:
        tokenizer: `PackedTokenizer`.
        keys: tuple of str, as `Tokens.ids`.
        config: dict.
        path: `pathlib.Path` of its file.
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
        A tokenizer; None if the folder has no tokenizer files, or if the model
        type is none of the registry.

    Raises:
        ConversionError: files are damaged or contradict each other, or have
            settings that this library does not support.
    """
    known = files_by_type("text")
    if kind not in known:
        return None
    _, files = known[kind]
    return read_tokens(pathlib.Path(folder), files.tokens, sequence_length)


def read_tokens(folder, tokens, sequence_length):
    """Read the tokenizer of a folder, as `read`.

    Args:
        folder: `pathlib.Path`.
        tokens: `Tokens`.
        sequence_length: int.
    """
    try:
        return READERS[tokens.kind](folder, tokens, sequence_length)
    except ConversionError:
        raise
    except Exception as error:  # Damaged files raise any error.
        raise ConversionError(
            f"A tokenizer must be readable: {error!s:.300}", folder
        ) from error


def _read_roberta(folder, tokens, sequence_length):
    found = _roberta(folder)
    return found and BridgeTowerTokenizer(*found, sequence_length)


def _read_bert(folder, tokens, sequence_length):
    found = _bert(folder)
    return found and BridgeTowerBertTokenizer(
        *found, sequence_length, tokens.has_segments
    )


def _read_json(folder, tokens, sequence_length, files):
    return json_tokenizers.read(folder, tokens, files, sequence_length)


def _roberta(folder):
    """Return vocabulary and merges, from tokenizer.json if there is one."""
    values = _tokenizer_json(folder, "BPE")
    _check_splitting(folder, values)
    if values:
        model = values["model"]
        return model["vocab"], read_merges(model.get("merges"))
    lists = [folder / "vocab.json", folder / "merges.txt"]
    there = any(path.is_file() for path in lists)
    return tuple(map(str, lists)) if there else None


def _check_splitting(folder, values):
    """Reject settings that split texts differently than RoBERTa's tokenizer."""
    before = values.get("pre_tokenizer", {"type": "ByteLevel"})
    before = before if isinstance(before, dict) else {"type": before}
    tokens = [*read_if_there(folder / "added_tokens.json")]
    tokens += [t.get("content") for t in values.get("added_tokens") or ()]
    config = read_if_there(folder / "tokenizer_config.json")
    wrong = [f"token {t!r:.60}" for t in tokens if t not in SPECIAL_TOKENS]
    if before.get("type") != "ByteLevel" or not before.get("use_regex", True):
        wrong.append(f"pre_tokenizer={before!r:.100}")
    wrong += [
        f"{name}={value!r:.60}"
        for name, value in (
            ("normalizer", values.get("normalizer")),
            ("add_prefix_space", before.get("add_prefix_space")),
            ("add_prefix_space", config.get("add_prefix_space")),
            *((k, values.get("model", {}).get(k)) for k in BPE_SETTINGS),
        )
        if value
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer must be RoBERTa's, without added tokens or other "
            "settings. Remove them, or the tokenizer's files, and pass a "
            "`preprocessor` of your own.",
            folder,
            wrong,
        )


def _bert(folder):
    """Return the words, in the order of their ids, and whether to lower-case.

    The configuration comes before tokenizer.json, as in transformers.
    """
    config = read_if_there(folder / "tokenizer_config.json")
    values = _tokenizer_json(folder, "WordPiece")
    before = values.get("normalizer")
    saved = before.get("lowercase") if isinstance(before, dict) else None
    lowercase = config.get("do_lower_case", saved is not False)
    # If not set, accents are removed exactly if texts are lower-cased.
    wrong = [
        f"{name}={config[name]!r:.60}"
        for name, kept in (
            ("strip_accents", (None, lowercase)),
            ("tokenize_chinese_chars", (True,)),
        )
        if name in config and config[name] not in kept
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer of BERT must have the published settings.",
            folder / "tokenizer_config.json",
            wrong,
        )
    lines = folder / "vocab.txt"
    if values:
        ids = values["model"]["vocab"]
        return sorted(ids, key=ids.get), lowercase
    return (str(lines), lowercase) if lines.is_file() else None


def _tokenizer_json(folder, kind):
    """Return the values of `tokenizer.json`, or `{}`."""
    path = folder / "tokenizer.json"
    values = read_if_there(path)
    if path.is_file():
        model = values.get("model")
        named = isinstance(model, dict) and (
            model.get("type") or TYPE_KEYS[kind] in model
        )
        if named not in (kind, True):
            raise ConversionError(f"A tokenizer must be of type {kind}.", path)
    return values


# By `Tokens.kind`: functions of a folder, `Tokens` and a sequence length.
# They return the tokenizer, or None if there are no files.
READERS = {
    "byte_bpe": _read_roberta,
    "wordpiece": _read_bert,
    **{
        kind: functools.partial(_read_json, files=files)
        for kind, files in json_tokenizers.FILES.items()
    },
}
