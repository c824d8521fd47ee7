"""Reads the tokenizer files of a `transformers` folder."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import json_tokenizers
from keras_bridgetower.convert.json_tokenizers import read_if_there
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.encoders.layouts import PADDING_ROWS
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


@dataclasses.dataclass(frozen=True)
class Kind:
    """The tokenizer of one model type of transformers.

    Args:
        read: function of a folder and a sequence length that returns the
            tokenizer, or None if there are no files.
        ids: tuple of str, the ids of special tokens in `config.json` that are
            those of the tokenizer.
        before: int, rows of the table of positions before those of tokens.
        positions: int, positions of tokens if `config.json` names none.
        whole: bool, whether texts have all positions by default. The encoder
            then reads no padding mask.
        start: int, added tokens that the encoder does not see.
    """

    read: Callable
    ids: tuple = ("pad_token_id",)
    before: int = 0
    positions: int = 512
    whole: bool = False
    start: int = 0


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
    name = configurations.require_type(config, path, list(KINDS))
    kind = KINDS[name]
    config = configurations.nested_values(config, "text_config") or config
    try:
        most = _most_tokens(config, kind)
        usual = _usual_length(folder, most, kind)
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
    _check_encoder(found, kind, config, path)
    return found


def _most_tokens(config, kind):
    """Return the number of tokens that an encoder reads at most."""
    named = config.get("max_position_embeddings")
    return (named - kind.before if named else kind.positions) + kind.start


def _usual_length(folder, most, kind):
    """Return the number of tokens in a text that the files give."""
    files = ("tokenizer_config.json", "sentence_bert_config.json")
    config, sentences = (read_if_there(folder / name) for name in files)
    given = (config.get("model_max_length"), sentences.get("max_seq_length"))
    given = [int(n) + kind.start for n in given if n]
    return min([most, *given] if kind.whole else [most, TEXT_LENGTH, *given])


def _check_encoder(tokenizer, kind, config, path):
    """Check that a tokenizer is that of the encoder in `config.json`."""
    size = tokenizer.vocabulary_size()
    rows = config.get("vocab_size", size)
    wrong = []
    if type(rows) is not int or rows < size:
        wrong.append(f"{size} tokens, vocab_size={rows!r:.50}")
    start, pad, end, *_ = tokenizer.special_token_ids
    ids = {"bos_token_id": start, "pad_token_id": pad, "eos_token_id": end}
    wrong += [
        f"{key}={config[key]!r:.50}, but {ids[key]} in the tokenizer"
        for key in kind.ids
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
        type is none of `KINDS`.

    Raises:
        ConversionError: files are damaged or contradict each other, or have
            settings that this library does not support.
    """
    if kind not in KINDS:
        return None
    folder = pathlib.Path(folder)
    try:
        return KINDS[kind].read(folder, sequence_length)
    except ConversionError:
        raise
    except Exception as error:  # Damaged files raise any error.
        raise ConversionError(
            f"A tokenizer must be readable: {error!s:.300}", folder
        ) from error


def _read_roberta(folder, sequence_length):
    found = _roberta(folder)
    return found and BridgeTowerTokenizer(*found, sequence_length)


def _read_bert(folder, sequence_length, has_segments=True):
    found = _bert(folder)
    return found and BridgeTowerBertTokenizer(
        *found, sequence_length, has_segments
    )


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


_OF_ROBERTA = {
    "ids": ("bos_token_id", "pad_token_id", "eos_token_id"),
    "before": PADDING_ROWS,
}
_BERT = Kind(_read_bert)
_CLIP = Kind(json_tokenizers.CLIP.read, (), positions=77, whole=True)
_METACLIP2 = Kind(
    json_tokenizers.XLM_ROBERTA.read,
    ("eos_token_id",),
    positions=77,
    whole=True,
)
_SIGLIP = Kind(
    json_tokenizers.SIGLIP.read, (), positions=64, whole=True, start=1
)
_SIGLIP2 = dataclasses.replace(_SIGLIP, read=json_tokenizers.SIGLIP2.read)
# By model type, as `config.json` names it.
KINDS = {
    "roberta": Kind(_read_roberta, **_OF_ROBERTA),
    "xlm-roberta": Kind(json_tokenizers.XLM_ROBERTA.read, **_OF_ROBERTA),
    "bert": _BERT,
    "electra": _BERT,
    "distilbert": Kind(functools.partial(_read_bert, has_segments=False)),
    "deberta-v2": Kind(json_tokenizers.DEBERTA.read),
    "albert": Kind(
        json_tokenizers.ALBERT.read,
        ("bos_token_id", "pad_token_id", "eos_token_id"),
    ),
    "clip": _CLIP,
    "clip_text_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_text_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_text_model": _SIGLIP2,
    "metaclip_2": _METACLIP2,
    "metaclip_2_text_model": _METACLIP2,
}
