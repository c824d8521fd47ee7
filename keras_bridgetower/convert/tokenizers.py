"""Reads the tokenizer files of a `transformers` folder, for RoBERTa or BERT."""

import pathlib

from keras_bridgetower.convert.tensors import read_json
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


def read(folder, kind, sequence_length):
    """Read the tokenizer of a folder.

    Args:
        folder: path of the folder.
        kind: str, the text encoder: `"roberta"` or `"bert"`.
        sequence_length: int, number of tokens in a text.

    Returns:
        A tokenizer; None if the folder has no tokenizer files, or if the text
        encoder is neither.

    Raises:
        ConversionError: files are damaged or contradict each other, or have
            settings that this library does not support.
    """
    if kind not in READERS:
        return None
    folder = pathlib.Path(folder)
    arguments, cls = READERS[kind]
    try:
        found = arguments(folder)
        return found if found is None else cls(*found, sequence_length)
    except ConversionError:
        raise
    except Exception as error:  # Damaged files raise any error.
        raise ConversionError(
            f"A tokenizer must be readable: {error!s:.300}", folder
        ) from error


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
    tokens = [*_read_if_there(folder / "added_tokens.json")]
    tokens += [t.get("content") for t in values.get("added_tokens") or ()]
    config = _read_if_there(folder / "tokenizer_config.json")
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
    config = _read_if_there(folder / "tokenizer_config.json")
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
    values = _read_if_there(path)
    if path.is_file():
        model = values.get("model")
        named = isinstance(model, dict) and (
            model.get("type") or TYPE_KEYS[kind] in model
        )
        if named not in (kind, True):
            raise ConversionError(f"A tokenizer must be of type {kind}.", path)
    return values


def _read_if_there(path):
    return read_json(path) if path.is_file() else {}


# By text encoder: the function that finds a tokenizer's arguments, its class.
READERS = {
    "roberta": (_roberta, BridgeTowerTokenizer),
    "bert": (_bert, BridgeTowerBertTokenizer),
}
