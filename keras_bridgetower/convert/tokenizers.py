"""Reads the tokenizer files of a `transformers` folder, for RoBERTa or BERT."""

import contextlib
import pathlib

from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.preprocessing.tokenizer import SPECIAL_TOKENS
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerBertTokenizer
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer
from keras_bridgetower.preprocessing.tokenizer import read_merges
from keras_bridgetower.preprocessing.tokenizer import read_words
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
    folder = pathlib.Path(folder)
    if kind not in READERS:
        return None
    with _readable(folder):
        path, arguments = READERS[kind](folder)
    if path is None:
        return None
    with _readable(path):
        return CLASSES[kind](*arguments, sequence_length)


@contextlib.contextmanager
def _readable(path):
    """Turn errors of reading a file into `ConversionError`."""
    try:
        yield
    except ConversionError:
        raise
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise ConversionError(
            f"A tokenizer must be readable: {error!s:.300}", path
        ) from error


# The result if a folder has no tokenizer: no path and no arguments.
_NONE = (None, None)


def _roberta(folder):
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    lists = [path for path in (vocabulary, merges) if path.is_file()]
    path, values = _tokenizer_json(folder, "BPE", "RoBERTa")
    _check_splitting(folder, path, values)
    if path is None:
        if len(lists) == 1:
            raise ConversionError(
                "A tokenizer must have vocab.json and merges.txt, or "
                "tokenizer.json, which holds both. Fetch the missing file.",
                lists[0],
            )
        return (vocabulary, tuple(map(str, lists))) if lists else _NONE
    words, pairs = values["model"]["vocab"], values["model"].get("merges")
    with _readable(path):
        pairs = read_merges(pairs)
    others = []
    if vocabulary in lists and read_json(vocabulary) != words:
        others.append(vocabulary.name)
    with _readable(merges):
        if merges in lists and read_merges(merges) != pairs:
            others.append(merges.name)
    if others:
        raise _contradiction(path, others)
    return path, (words, pairs)


def _contradiction(path, others):
    return ConversionError(
        "A tokenizer.json must have the values of the files beside it. Keep "
        "the files of one tokenizer.",
        path,
        [f"other values in {name}" for name in others],
    )


def _check_splitting(folder, path, values):
    """Reject settings that split texts differently than RoBERTa's tokenizer."""
    config = folder / "tokenizer_config.json"
    given = read_json(config) if config.is_file() else {}
    added = folder / "added_tokens.json"
    tokens = list(read_json(added)) if added.is_file() else []
    with _readable(path):
        tokens += [t.get("content") for t in values.get("added_tokens") or ()]
    before = values.get("pre_tokenizer", {"type": "ByteLevel"})
    before = before if isinstance(before, dict) else {"type": before}
    wrong = [f"token {t!r:.60}" for t in tokens if t not in SPECIAL_TOKENS]
    if before.get("type") != "ByteLevel" or not before.get("use_regex", True):
        wrong.append(f"pre_tokenizer={before!r:.100}")
    wrong += [
        f"{name}={value!r:.60}"
        for name, value in (
            ("normalizer", values.get("normalizer")),
            ("add_prefix_space", before.get("add_prefix_space")),
            ("add_prefix_space", given.get("add_prefix_space")),
            *((k, values.get("model", {}).get(k)) for k in BPE_SETTINGS),
        )
        if value
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer must be RoBERTa's, without added tokens or other "
            "settings. Remove them, or the tokenizer's files, and pass a "
            "`preprocessor` of your own.",
            path or folder,
            wrong,
        )


def _bert(folder):
    config, lines = folder / "tokenizer_config.json", folder / "vocab.txt"
    given = read_json(config) if config.is_file() else {}
    path, values = _tokenizer_json(folder, "WordPiece", "BERT")
    before = values.get("normalizer")
    saved = before.get("lowercase") if isinstance(before, dict) else None
    lowercase = given.get("do_lower_case", saved is not False)
    # If not set, accents are removed exactly if texts are lower-cased.
    wrong = [
        f"{name}={given[name]!r:.60}"
        for name, kept in (
            ("strip_accents", (None, lowercase)),
            ("tokenize_chinese_chars", (True,)),
        )
        if name in given and given[name] not in kept
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer of BERT must have the published settings.",
            config,
            wrong,
        )
    if path is None:
        return (lines, (str(lines), lowercase)) if lines.is_file() else _NONE
    with _readable(path):
        ids = values["model"]["vocab"]
        words = sorted(ids, key=ids.get)
    others = [config.name] if saved not in (None, lowercase) else []
    with _readable(lines):
        if lines.is_file() and read_words(str(lines)) != words:
            others.append(lines.name)
    if others:
        raise _contradiction(path, others)
    return path, (words, lowercase)


def _tokenizer_json(folder, kind, name):
    """Return path and values of `tokenizer.json`, or `(None, {})`."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None, {}
    values = read_json(path)
    model = values.get("model")
    if not isinstance(model, dict) or not (
        model.get("type") == kind
        or (model.get("type") is None and TYPE_KEYS[kind] in model)
    ):
        raise ConversionError(
            f"A tokenizer must be of type {kind}, as {name}'s.", path
        )
    if not isinstance(model.get("vocab"), dict):
        raise ConversionError(
            "A tokenizer must hold a vocabulary, from token to id. Fetch the "
            "file again.",
            path,
        )
    return path, values


READERS = {"roberta": _roberta, "bert": _bert}
CLASSES = {
    "roberta": BridgeTowerTokenizer,
    "bert": BridgeTowerBertTokenizer,
}
