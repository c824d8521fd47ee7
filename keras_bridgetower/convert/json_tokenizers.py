"""Reads tokenizers of the class `BridgeTowerJsonTokenizer` from folders.

SentencePiece `.model` files become values of a `tokenizer.json`, by the rules
of transformers' tokenizers of the same name.
"""

import base64
import string

from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most
from keras_bridgetower.preprocessing.json_tokenizer import (
    BridgeTowerJsonTokenizer,
)
from keras_bridgetower.preprocessing.tokenizer import read_merges
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

JSON = "tokenizer.json"
# Words of CLIP.
CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
    r"|[^\s\p{L}\p{N}]+"
)

UNIGRAM = 1
# Types of pieces: `<unk>`, and those that never occur in a text.
SPECIAL = (2, 3)
# Pieces defined by a user, which are matched before all others.
DEFINED = 4
SPACE = "▁"
# The last sigma of a word has another lower case.
LAST_SIGMA = r"\p{Cased}\p{Case_Ignorable}*\KΣ(?!\p{Case_Ignorable}*\p{Cased})"
PUNCTUATION = "".join(f"\\{sign}" for sign in string.punctuation)


def read(folder, tokens, sequence_length, files):
    """Read the tokenizer in a folder.

    Args:
        folder: `pathlib.Path`.
        tokens: `Tokens`.
        sequence_length: int.
        files: tuple of `(name, function)`. The first file that exists is
            used. The function takes its path, the special tokens and the
            values of tokenizer_config.json, and returns the values of a
            `tokenizer.json`.

    Returns:
        `BridgeTowerJsonTokenizer`, or None if there are no files.
    """
    config = read_if_there(folder / "special_tokens_map.json")
    config |= read_if_there(folder / "tokenizer_config.json")
    start, end = tokens.ends
    names = zip(
        (start, "pad", end, "unk", "mask"), tokens.special.split(), strict=False
    )
    special = [
        _content(config.get(f"{name}_token") or token) for name, token in names
    ]
    paths = ((folder / name, made) for name, made in files)
    found = next(((p, made) for p, made in paths if p.is_file()), None)
    if found is None:
        return None
    path, make_values = found
    values = make_values(path, special, config)
    tokenizer = BridgeTowerJsonTokenizer(
        None,
        special,
        special[2:3] * tokens.ends_twice,
        tokens.adds_start,
        tokens.has_segments,
        sequence_length,
    )
    tokenizer.set_vocabulary(values)
    _check_packing(values.get("post_processor"), tokenizer, config, path)
    _check_added(folder, config, tokenizer)
    # A damaged table of characters raises an error only when it is used.
    tokenizer.token_lists(["A ｆéw 漢字, 12 кот ñ ﬁ\u0301 😀"])
    return tokenizer


def any_json(path, special, config):
    """Return the values of a `tokenizer.json`, unchanged."""
    return read_json(path)


def clip_json(path, special, config):
    """Return the values for CLIP; their decoder turns word ends into spaces."""
    return {**read_json(path), "decoder": _clip_decoder()}


def gemma_json(path, special, config):
    """Return the values for SigLIP 2, which was trained in lower case."""
    values = read_json(path)
    before = [{"type": "Lowercase"}, values.get("normalizer")]
    steps = [step for step in before if step]
    return {**values, "normalizer": {"type": "Sequence", "normalizers": steps}}


def clip_lists(path, special, config):
    """Return the values for CLIP's `vocab.json` with `merges.txt`."""
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    words = {
        "type": "Split",
        "pattern": {"Regex": CLIP_WORDS},
        "behavior": "Removed",
        "invert": True,
    }
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [words, _bytes()],
        },
        "decoder": _clip_decoder(),
        "model": {
            "type": "BPE",
            "unk_token": special[3],
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "vocab": read_json(path),
            "merges": read_merges(path.parent / "merges.txt"),
        },
    }


def _clip_decoder():
    ends = {"type": "Replace", "pattern": {"String": "</w>"}, "content": " "}
    last = {"type": "Strip", "content": " ", "start": 0, "stop": 1}
    return {"type": "Sequence", "decoders": [_bytes(), ends, last]}


def _bytes():
    switches = {"add_prefix_space": False, "trim_offsets": True}
    return {"type": "ByteLevel", **switches, "use_regex": True}


def xlm_roberta(path, special, config):
    """Return the values for XLM-R, whose ids are those of fairseq."""
    proto = _read_proto(path)
    start, padding, end, unknown, mask = special
    first = [(name, 0.0) for name in (start, padding, end, unknown)]
    words = [{"type": "WhitespaceSplit"}]
    if [name for name, _ in _pieces(proto)[:3]] != [unknown, start, end]:
        raise ValueError(f"its pieces must begin {unknown} {start} {end}")
    pieces = first + _pieces(proto)[3:] + [(mask, 0.0)]
    return _unigram(proto, pieces, unknown, _characters(proto), words)


def deberta(path, special, config):
    """Return the values for DeBERTa-v3, whose mask token comes last."""
    proto = _read_proto(path)
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
    return _unigram(
        proto,
        pieces,
        special[3],
        normalizers,
        split if config.get("split_by_punct") else [],
    )


def albert(path, special, config):
    """Return the values for ALBERT."""
    proto = _read_proto(path)
    normalizers = [
        _replace({"String": "``"}, '"'),
        _replace({"String": "''"}, '"'),
    ]
    if not config.get("keep_accents"):
        normalizers += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if config.get("do_lower_case", True):
        normalizers.append({"type": "Lowercase"})
    return _unigram(
        proto,
        _pieces(proto),
        special[3],
        normalizers + _characters(proto),
        [{"type": "WhitespaceSplit"}],
    )


def siglip(path, special, config):
    """Return the values for SigLIP: without punctuation, in lower case.

    transformers uses SentencePiece itself here. `tokenizers` maps a letter
    together with its accents. So letters are composed, and separated by NUL,
    which no text has, while characters are mapped.
    """
    proto = _read_proto(path)
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
    values = _unigram(proto, _pieces(proto), special[3], normalizers, [])
    return {**values, "pre_tokenizer": None}


def _read_proto(path):
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


def _unigram(proto, pieces, unknown, normalizers, pre_tokenizers):
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


def read_if_there(path):
    """Return the object in a JSON file, `{}` if the file is absent."""
    return read_json(path) if path.is_file() else {}


def _content(token):
    return token["content"] if isinstance(token, dict) else token


def _check_packing(processor, tokenizer, config, path):
    """Check that a file packs texts as the text encoder was trained."""
    start, _, end, *_ = tokenizer.special_tokens
    one = [None, end] if tokenizer.adds_start else [start, None, end]
    pair = [*one, *tokenizer.between, None, end]
    if "add_bos_token" in config or "add_eos_token" in config:
        # transformers then ignores the packing of tokenizer.json.
        before = [start] if config.get("add_bos_token") else []
        after = [end] if config.get("add_eos_token") else []
        found = {"a text": [*before, None, *after]}
    else:
        found = _packing(processor)
    expected = {"a text": one, "two texts": pair}
    wrong = [
        f"{name}: {' '.join(token or '…' for token in tokens)}"
        for name, tokens in found.items()
        if tokens != expected[name]
    ]
    if wrong:
        raise ConversionError(
            "A tokenizer must pack texts as its encoder was trained: "
            f"{' '.join(token or '…' for token in one)}.",
            path,
            wrong,
        )


def _packing(processor):
    """Return the packed texts in a post-processor, None for each text."""
    if not processor:
        return {}
    kind = processor["type"]
    if kind == "Sequence":
        found = map(_packing, processor["processors"])
        return {name: tokens for one in found for name, tokens in one.items()}
    if kind == "TemplateProcessing":
        return {
            name: [part.get("SpecialToken", {}).get("id") for part in parts]
            for name, parts in (
                ("a text", processor["single"]),
                ("two texts", processor["pair"]),
            )
        }
    if kind not in ("RobertaProcessing", "BertProcessing"):
        return {}
    start, end = processor["cls"][0], processor["sep"][0]
    between = [end] * (kind == "RobertaProcessing")
    one = [start, None, end]
    return {"a text": one, "two texts": [*one, *between, None, end]}


def _check_added(folder, config, tokenizer):
    """Reject added tokens of other files that the tokenizer lacks."""
    added = read_if_there(folder / "added_tokens.json")
    listed = config.get("added_tokens_decoder") or {}
    added |= {_content(token): int(i) for i, token in listed.items()}
    size = tokenizer.vocabulary_size()
    wrong = [
        f"{name!r:.60}: {i}"
        for name, i in added.items()
        if not 0 <= i < size or tokenizer.id_to_token(i) != name
    ]
    if wrong:
        raise ConversionError(
            "Added tokens must be in the vocabulary of the tokenizer.",
            folder,
            wrong,
        )


# `files` of `read`, by `Tokens.kind`.
FILES = {
    "xlm_roberta": (
        (JSON, any_json),
        ("sentencepiece.bpe.model", xlm_roberta),
    ),
    "clip": ((JSON, clip_json), ("vocab.json", clip_lists)),
    # transformers reads the first one only.
    "siglip": (
        ("spiece.model", siglip),
        (JSON, any_json),
    ),
    "gemma": ((JSON, gemma_json),),
    "deberta": (
        (JSON, any_json),
        ("spm.model", deberta),
    ),
    "albert": (
        (JSON, any_json),
        ("spiece.model", albert),
    ),
}
