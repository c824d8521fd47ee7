"""Tokenizer files of `transformers`, for either text encoder."""

import pathlib

from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.preprocessing.bert_tokenizer import (
    BridgeTowerBertTokenizer,
)
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer

# `max_text_len` of the published configurations, and of the authors.
TEXT_LENGTH = 50


def read(folder, kind, sequence_length):
    """The tokenizer of a folder.

    Args:
        folder: path.
        kind: str, the text encoder: `"roberta"` or `"bert"`.
        sequence_length: int, tokens in a text.

    Returns:
        A tokenizer; None where the folder has no files of it, or the text
        encoder is another one.

    Raises:
        ConversionError: damaged files, or settings that cannot be kept.
    """
    folder = pathlib.Path(folder)
    reader = READERS.get(kind)
    path, arguments = reader(folder) if reader else (None, None)
    if path is None:
        return None
    try:
        return CLASSES[kind](*arguments, sequence_length)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise ConversionError(
            f"A tokenizer must be readable: {error!s:.300}", path
        ) from error


def _roberta(folder):
    path = folder / "vocab.json"
    if path.is_file() and (folder / "merges.txt").is_file():
        return path, (str(path), str(folder / "merges.txt"))
    path, model = _model(folder, "BPE", "RoBERTa")
    return path, (model.get("vocab"), model.get("merges"))


def _bert(folder):
    config = folder / "tokenizer_config.json"
    values = read_json(config) if config.is_file() else {}
    lowercase = values.get("do_lower_case", True)
    # Otherwise accents are removed where texts are lowered.
    wrong = [
        f"{name}={values[name]!r:.60}"
        for name, kept in (
            ("strip_accents", (None, lowercase)),
            ("tokenize_chinese_chars", (True,)),
        )
        if name in values and values[name] not in kept
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer of BERT must have its published settings.",
            config,
            wrong,
        )
    path = folder / "vocab.txt"
    if path.is_file():
        return path, (str(path), lowercase)
    path, model = _model(folder, "WordPiece", "BERT")
    words = model.get("vocab", {})
    return path, (sorted(words, key=words.get), lowercase)


def _model(folder, kind, name):
    """The model in `tokenizer.json`, or no path and nothing."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None, {}
    model = read_json(path).get("model")
    if not isinstance(model, dict) or model.get("type") != kind:
        raise ConversionError(
            f"A tokenizer must be of type {kind}, as {name}'s.", path
        )
    return path, model


READERS = {"roberta": _roberta, "bert": _bert}
CLASSES = {
    "roberta": BridgeTowerTokenizer,
    "bert": BridgeTowerBertTokenizer,
}
