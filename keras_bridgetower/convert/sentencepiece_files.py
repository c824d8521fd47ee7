"""Reads SentencePiece `.model` files as values of a `tokenizer.json`.

The rules are those of transformers' tokenizers of the same name.
"""

import base64
import string

from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

UNIGRAM = 1
# Types of pieces: `<unk>`, and those that no text has.
SPECIAL = (2, 3)
# Pieces that a user defined, which are found before all others.
DEFINED = 4
SPACE = "▁"
# The last sigma of a word has its own small letter.
LAST_SIGMA = r"\p{Cased}\p{Case_Ignorable}*\KΣ(?!\p{Case_Ignorable}*\p{Cased})"
PUNCTUATION = "".join(f"\\{sign}" for sign in string.punctuation)


def xlm_roberta(path, special, config):
    """Return the values for XLM-R, whose ids are those of fairseq."""
    proto = _read(path)
    start, padding, end, unknown, mask = special
    first = [(name, 0.0) for name in (start, padding, end, unknown)]
    words = [{"type": "WhitespaceSplit"}]
    if [name for name, _ in _pieces(proto)[:3]] != [unknown, start, end]:
        raise ValueError(f"its pieces must begin {unknown} {start} {end}")
    pieces = first + _pieces(proto)[3:] + [(mask, 0.0)]
    return _values(proto, pieces, unknown, _characters(proto), words)


def deberta(path, special, config):
    """Return the values for DeBERTa-v3, whose mask token comes last."""
    proto = _read(path)
    pieces = _pieces(proto)
    names = {name for name, _ in pieces}
    pieces += [(name, 0.0) for name in special if name not in names]
    lower = [{"type": "Lowercase"}] if config.get("do_lower_case") else []
    split = [{"type": "Punctuation", "behavior": "Isolated"}]
    normalizers = lower + [
        _replace({"Regex": r"\s{2,}|[\n\r\t]"}, " "),
        {"type": "NFC"},
        {"type": "Strip", "strip_left": False, "strip_right": True},
    ]
    return _values(
        proto,
        pieces,
        special[3],
        normalizers,
        split if config.get("split_by_punct") else [],
    )


def albert(path, special, config):
    """Return the values for ALBERT."""
    proto = _read(path)
    normalizers = [
        _replace({"String": "``"}, '"'),
        _replace({"String": "''"}, '"'),
    ]
    if not config.get("keep_accents"):
        normalizers += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if config.get("do_lower_case", True):
        normalizers.append({"type": "Lowercase"})
    return _values(
        proto,
        _pieces(proto),
        special[3],
        normalizers + _characters(proto),
        [{"type": "WhitespaceSplit"}],
    )


def siglip(path, special, config):
    """Return the values for SigLIP: without punctuation, in lower case.

    transformers uses SentencePiece itself here. The library `tokenizers` maps
    a letter together with its accents, so letters are composed, and then
    separated by NUL, which no text has, while characters are mapped.
    """
    proto = _read(path)
    lower = [_replace({"Regex": LAST_SIGMA}, "ς"), {"type": "Lowercase"}]
    normalizers = [
        _replace({"String": SPACE}, " "),
        {"type": "Prepend", "prepend": SPACE},
        *(lower if config.get("do_lower_case", True) else []),
        _replace({"Regex": f"[{PUNCTUATION}]"}, ""),
        _replace({"Regex": r"[\s\x1c-\x1f]+"}, " "),
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "NFC"},
        _replace({"Regex": "(?<=.)"}, "\0"),
        *_characters(proto),
        _replace({"String": "\0"}, ""),
        _replace({"Regex": " {2,}"}, " "),
        _replace({"String": " "}, SPACE),
        _replace({"Regex": f"{SPACE}+$"}, ""),
    ]
    values = _values(proto, _pieces(proto), special[3], normalizers, [])
    return {**values, "pre_tokenizer": None}


def _read(path):
    """Read and check the message in a file."""
    from sentencepiece import sentencepiece_model_pb2

    with open_regular(path) as file:
        data = read_most(file, LARGEST_ASSET)
    proto = sentencepiece_model_pb2.ModelProto.FromString(data)
    trained = proto.trainer_spec
    if trained.model_type != UNIGRAM or trained.byte_fallback:
        raise ValueError("it must hold a Unigram model without bytes as pieces")
    return proto


def _pieces(proto):
    return [(piece.piece, piece.score) for piece in proto.pieces]


def _characters(proto):
    """Return the normalizer of a file, in a list, or none."""
    table = base64.b64encode(proto.normalizer_spec.precompiled_charsmap)
    whole = {"type": "Precompiled", "precompiled_charsmap": table.decode()}
    return [whole] if table else []


def _replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def _values(proto, pieces, unknown, normalizers, pre_tokenizers):
    """Return the values of a `tokenizer.json`.

    Args:
        proto: the message of a file.
        pieces: list of `(piece, score)`, in the order of their ids.
        unknown: str, the token that stands for unknown characters.
        normalizers, pre_tokenizers: lists of dicts; `Metaspace` comes last.
    """
    spaces = {"replacement": SPACE, "prepend_scheme": "always", "split": True}
    spaces = {"type": "Metaspace", **spaces}
    ids = {name: i for i, (name, _) in enumerate(pieces)}
    added = [
        {
            "id": ids[piece.piece],
            "content": piece.piece,
            "special": piece.type in SPECIAL,
            **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
            "normalized": False,
        }
        for piece in proto.pieces
        if piece.type in (*SPECIAL, DEFINED) and piece.piece in ids
    ]
    return {
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*pre_tokenizers, spaces],
        },
        "decoder": spaces,
        "model": {
            "type": "Unigram",
            "unk_id": ids[unknown],
            "vocab": pieces,
            "byte_fallback": False,
        },
    }
