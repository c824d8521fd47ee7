"""The rules by which classes of `transformers` 5 split texts.

Each class is built from its vocabulary and the values of tokenizer_config.json,
without the rules in tokenizer.json.
"""

import string
from collections.abc import Callable
from typing import NamedTuple

from keras_bridgetower.preprocessing.tokenizer import CONTINUES

JSON = "tokenizer.json"
XLM_PIECES = "sentencepiece.bpe.model"
# Words of CLIP.
CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
    r"|[^\s\p{L}\p{N}]+"
)
SPACE = "▁"
# The last sigma of a word has another lower case.
LAST_SIGMA = r"\p{Cased}\p{Case_Ignorable}*\KΣ(?!\p{Case_Ignorable}*\p{Cased})"
PUNCTUATION = "".join(f"\\{sign}" for sign in string.punctuation)


class Words(NamedTuple):
    """The vocabulary of a tokenizer.

    Args:
        vocab: dict from tokens to ids, or list of `(piece, score)`.
        merges: list of the merges of BPE.
        characters: list of the normalizer `Precompiled`, or empty.
        added: list of dicts, the added tokens among the pieces.
    """

    vocab: dict | list
    merges: list = ()
    characters: list = ()
    added: list = ()


class Family(NamedTuple):
    """A class of tokenizers in transformers.

    Args:
        classes: str, its names, without "Fast".
        files: tuple of str, the files with its vocabulary. The first that
            exists is used.
        special: str, names and tokens for start, padding, end, unknown and, if
            there is one, mask, unless the configuration has others.
        rules: function of `Words`, the unknown token and the configuration
            that returns values of a `tokenizer.json`.
        ends_twice: bool, whether two end tokens separate two texts.
        padding_side: str, unless the configuration has another.
    """

    classes: str
    files: tuple
    special: str
    rules: Callable
    ends_twice: bool = False
    padding_side: str = "right"


def roberta(words, unknown, config):
    """Return the values for RoBERTa."""
    before = _bytes(config.get("add_prefix_space", False))
    return {
        "pre_tokenizer": before,
        "decoder": before,
        "model": _bpe(words, unk_token=None),
    }


def bert(words, unknown, config):
    """Return the values for BERT, DistilBERT and ELECTRA."""
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
            "strip_accents": config.get("strip_accents"),
            "lowercase": config.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": CONTINUES,
            "max_input_chars_per_word": 100,
            "vocab": words.vocab,
        },
    }


def clip(words, unknown, config):
    """Return the values for CLIP; their decoder turns word ends into spaces."""
    ends = _replace({"String": "</w>"}, " ")
    last = {"type": "Strip", "content": " ", "start": 0, "stop": 1}
    spaces = _replace({"Regex": r"\s+"}, " ")
    split = {
        "type": "Split",
        "pattern": {"Regex": CLIP_WORDS},
        "behavior": "Removed",
        "invert": True,
    }
    return {
        "normalizer": sequence([{"type": "NFC"}, spaces, LOWERCASE]),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, _bytes()],
        },
        "decoder": {"type": "Sequence", "decoders": [_bytes(), ends, last]},
        "model": _bpe(words, unk_token=unknown, end_of_word_suffix="</w>"),
    }


def gemma(words, unknown, config):
    """Return the values for SigLIP 2, which was trained in lower case."""
    spaces = _replace({"String": SPACE}, " ")
    parts = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]
    steps = [LOWERCASE, _replace({"String": " "}, SPACE)]
    return {
        "normalizer": sequence(steps),
        "decoder": {"type": "Sequence", "decoders": parts},
        "model": _bpe(
            words, unk_token=unknown, fuse_unk=True, byte_fallback=True
        ),
    }


def _bytes(prefix=False):
    switches = {"add_prefix_space": prefix, "trim_offsets": True}
    return {"type": "ByteLevel", **switches, "use_regex": True}


def _bpe(words, **switches):
    model = {"type": "BPE", "vocab": words.vocab, "merges": words.merges}
    return {**model, **switches}


def xlm_roberta(words, unknown, config):
    """Return the values for XLM-R."""
    split = [{"type": "WhitespaceSplit"}]
    return _unigram(words, 3, words.characters, split, config)


def deberta(words, unknown, config):
    """Return the values for DeBERTa-v3."""
    split = [{"type": "Punctuation", "behavior": "Isolated"}]
    normalizers = [
        *([LOWERCASE] if config.get("do_lower_case") else []),
        _replace({"Regex": r"\s{2,}|[\n\r\t]"}, " "),
        {"type": "NFC"},
        {"type": "Strip", "strip_left": False, "strip_right": True},
    ]
    split = split if config.get("split_by_punct") else []
    return _unigram(words, unknown, normalizers, split, config, "first")


def albert(words, unknown, config):
    """Return the values for ALBERT."""
    normalizers = [
        _replace({"String": "``"}, '"'),
        _replace({"String": "''"}, '"'),
    ]
    if not config.get("keep_accents"):
        normalizers += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if config.get("do_lower_case", True):
        normalizers.append(LOWERCASE)
    normalizers += words.characters
    split = [{"type": "WhitespaceSplit"}]
    return _unigram(words, 1, normalizers, split, config)


def siglip(words, unknown, config):
    """Return the values for SigLIP: without punctuation, in lower case.

    transformers uses SentencePiece itself here. `tokenizers` maps a letter
    together with its accents. So letters are composed, and separated by NUL,
    which no text has, while characters are mapped.
    """
    normalizers = [
        _replace({"String": SPACE}, " "),
        {"type": "Prepend", "prepend": SPACE},
        *(LOWER if config.get("do_lower_case", True) else []),
        _replace({"Regex": f"[{PUNCTUATION}]"}, ""),
        _replace({"Regex": r"[\s\x1c-\x1f]+"}, " "),
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "NFC"},
        _replace({"Regex": "(?<=.)"}, "\0"),
        *words.characters,
        _replace({"String": "\0"}, ""),
        _replace({"Regex": " {2,}"}, " "),
        _replace({"String": " "}, SPACE),
        _replace({"Regex": f"{SPACE}+$"}, ""),
    ]
    values = _unigram(words, unknown, normalizers, [], config)
    return {**values, "pre_tokenizer": None}


def _replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(normalizers):
    return {"type": "Sequence", "normalizers": normalizers}


LOWERCASE = {"type": "Lowercase"}
# Of `str.lower`.
LOWER = (_replace({"Regex": LAST_SIGMA}, "ς"), LOWERCASE)


def _unigram(words, unknown, normalizers, splits, config, scheme="never"):
    """Return the values of a `tokenizer.json`.

    Args:
        words: `Words`.
        unknown: str or int, the token or id for unknown characters.
        normalizers, splits: lists of dicts; `Metaspace` comes last.
        config: dict, whose `add_prefix_space` is True by default.
        scheme: str, where `Metaspace` prepends a space if it is False.
    """
    if isinstance(unknown, str):
        unknown = [name for name, _ in words.vocab].index(unknown)
    scheme = "always" if config.get("add_prefix_space", True) else scheme
    spaces = {"replacement": SPACE, "prepend_scheme": scheme, "split": True}
    spaces = {"type": "Metaspace", **spaces}
    return {
        "normalizer": sequence(normalizers),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*splits, spaces],
        },
        "decoder": spaces,
        "model": {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": words.vocab,
            "byte_fallback": False,
        },
    }


# By `Tokens.kind`.
FAMILIES = {
    "byte_bpe": Family(
        "RobertaTokenizer",
        (JSON, "vocab.json", "merges.txt"),
        "cls=<s> pad=<pad> sep=</s> unk=<unk> mask=<mask>",
        roberta,
        ends_twice=True,
    ),
    "wordpiece": Family(
        "BertTokenizer DistilBertTokenizer ElectraTokenizer",
        (JSON, "vocab.txt"),
        "cls=[CLS] pad=[PAD] sep=[SEP] unk=[UNK] mask=[MASK]",
        bert,
    ),
    "xlm_roberta": Family(
        "XLMRobertaTokenizer",
        (JSON, XLM_PIECES),
        "bos=<s> pad=<pad> eos=</s> unk=<unk> mask=<mask>",
        xlm_roberta,
        ends_twice=True,
    ),
    "clip": Family(
        "CLIPTokenizer",
        (JSON, "vocab.json"),
        "bos=<|startoftext|> pad={0} eos={0} unk={0}".format("<|endoftext|>"),
        clip,
        ends_twice=True,
    ),
    "siglip": Family(
        "SiglipTokenizer",
        ("spiece.model", JSON),
        # The encoder does not read the start token, which is added.
        "eos=</s> pad=</s> eos=</s> unk=<unk>",
        siglip,
    ),
    "gemma": Family(
        "Siglip2Tokenizer",
        (JSON,),
        "bos=<bos> pad=<pad> eos=<eos> unk=<unk>",
        gemma,
        padding_side="left",
    ),
    "deberta": Family(
        "DebertaV2Tokenizer",
        (JSON, "spm.model"),
        "cls=[CLS] pad=[PAD] sep=[SEP] unk=[UNK] mask=[MASK]",
        deberta,
    ),
    "albert": Family(
        "AlbertTokenizer",
        (JSON, "spiece.model"),
        "cls=[CLS] pad=<pad> sep=[SEP] unk=<unk> mask=[MASK]",
        albert,
    ),
}
