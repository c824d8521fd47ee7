"""The rules by which classes of `transformers` 5 split texts.

Each class is built from its vocabulary and the values of tokenizer_config.json,
without the rules in tokenizer.json.
"""

import string
from collections.abc import Callable
from typing import NamedTuple

import tokenizers
from tokenizers import Regex
from tokenizers import decoders
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from keras_bridgetower.files import parse_json
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
        characters: list of the file's normalizer of characters, or empty.
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
    prefix = config.get("add_prefix_space", False)
    before = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return _values(_bpe(words), None, before, decoders.ByteLevel())


def bert(words, unknown, config):
    """Return the values for BERT, DistilBERT and ELECTRA."""
    model = {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": CONTINUES,
        "max_input_chars_per_word": 100,
        "vocab": words.vocab,
    }
    before = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    split = pre_tokenizers.BertPreTokenizer()
    return _values(model, before, split, decoders.WordPiece())


def clip(words, unknown, config):
    """Return the values for CLIP; their decoder turns word ends into spaces."""
    model = _bpe(words, unk_token=unknown, end_of_word_suffix="</w>")
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    steps = [normalizers.NFC(), spaces, normalizers.Lowercase()]
    split = pre_tokenizers.Split(Regex(CLIP_WORDS), "removed", invert=True)
    split = [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ends = [decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    return _values(
        model,
        normalizers.Sequence(steps),
        pre_tokenizers.Sequence(split),
        decoders.Sequence([decoders.ByteLevel(), *ends]),
    )


def gemma(words, unknown, config):
    """Return the values for SigLIP 2, which was trained in lower case."""
    bytes_ = {"fuse_unk": True, "byte_fallback": True}
    steps = [normalizers.Lowercase(), normalizers.Replace(" ", SPACE)]
    ends = [decoders.ByteFallback(), decoders.Fuse()]
    return _values(
        _bpe(words, unk_token=unknown, **bytes_),
        normalizers.Sequence(steps),
        None,
        decoders.Sequence([decoders.Replace(SPACE, " "), *ends]),
    )


def xlm_roberta(words, unknown, config):
    """Return the values for XLM-R."""
    split = [pre_tokenizers.WhitespaceSplit()]
    return _unigram(words, 3, words.characters, split, config)


def deberta(words, unknown, config):
    """Return the values for DeBERTa-v3.

    Characters are mapped as in transformers from 5.25 on: earlier versions
    ignored the table in the file.
    """
    split = [pre_tokenizers.Punctuation("isolated")]
    end = normalizers.Strip(left=False)
    if words.characters:
        spaces = normalizers.Replace(Regex(" {2,}"), " ")
        steps = [*words.characters, end, spaces]
    else:
        spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
        steps = [spaces, normalizers.NFC(), end]
    lower = [normalizers.Lowercase()] if config.get("do_lower_case") else []
    split = split if config.get("split_by_punct") else []
    return _unigram(words, unknown, lower + steps, split, config, "first")


def albert(words, unknown, config):
    """Return the values for ALBERT."""
    steps = [normalizers.Replace(quotes, '"') for quotes in ("``", "''")]
    if not config.get("keep_accents"):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if config.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    split = [pre_tokenizers.WhitespaceSplit()]
    return _unigram(words, 1, steps + words.characters, split, config)


def siglip(words, unknown, config):
    """Return the values for SigLIP: without punctuation, in lower case.

    transformers uses SentencePiece itself here. `tokenizers` maps a letter
    together with its accents. So letters are composed, and separated by NUL,
    which no text has, while characters are mapped.
    """
    replace = normalizers.Replace
    steps = [
        replace(SPACE, " "),
        normalizers.Prepend(SPACE),
        *(lowered() if config.get("do_lower_case", True) else []),
        replace(Regex(f"[{PUNCTUATION}]"), ""),
        replace(Regex(r"[\s\x1c-\x1f]+"), " "),
        normalizers.Strip(left=False),
        normalizers.NFC(),
        replace(Regex("(?<=.)"), "\0"),
        *words.characters,
        replace("\0", ""),
        replace(Regex(" {2,}"), " "),
        replace(" ", SPACE),
        replace(Regex(f"{SPACE}+$"), ""),
    ]
    values = _unigram(words, unknown, steps, [], config)
    return {**values, "pre_tokenizer": None}


def lowered():
    """Return the normalizers that do what `str.lower` does."""
    sigma = normalizers.Replace(Regex(LAST_SIGMA), "ς")
    return [sigma, normalizers.Lowercase()]


def after_lower(normalizer):
    """Return the value of a normalizer after `str.lower`."""
    first = _values(None, normalizers.Sequence(lowered()), None, None)
    steps = first["normalizer"]["normalizers"]
    steps += [normalizer] if normalizer else []
    return {"type": "Sequence", "normalizers": steps}


def _bpe(words, **switches):
    model = {"type": "BPE", "vocab": words.vocab, "merges": words.merges}
    return {**model, **switches}


def _unigram(words, unknown, steps, splits, config, scheme="never"):
    """Return the values of a `tokenizer.json`.

    Args:
        words: `Words`.
        unknown: str or int, the token or id for unknown characters.
        steps: list of normalizers.
        splits: list of pre-tokenizers; `Metaspace` comes last.
        config: dict, whose `add_prefix_space` is True by default.
        scheme: str, where `Metaspace` prepends a space if it is False.
    """
    if isinstance(unknown, str):
        unknown = [name for name, _ in words.vocab].index(unknown)
    scheme = "always" if config.get("add_prefix_space", True) else scheme
    spaces = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return _values(
        {"type": "Unigram", "unk_id": unknown, "vocab": words.vocab},
        normalizers.Sequence(steps),
        pre_tokenizers.Sequence([*splits, spaces]),
        decoders.Metaspace(prepend_scheme=scheme),
    )


def _values(model, normalizer, pre_tokenizer, decoder):
    """Return the values of a `tokenizer.json` with these parts."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.normalizer = normalizer
    engine.pre_tokenizer, engine.decoder = pre_tokenizer, decoder
    return {**parse_json(engine.to_str()), "model": model}


BERT = "cls=[CLS] pad=[PAD] sep=[SEP] unk=[UNK] mask=[MASK]"
ALBERT = "cls=[CLS] pad=<pad> sep=[SEP] unk=<unk> mask=[MASK]"
ROBERTA = "cls=<s> pad=<pad> sep=</s> unk=<unk> mask=<mask>"
XLM = "bos=<s> pad=<pad> eos=</s> unk=<unk> mask=<mask>"
CLIP = "bos=<|startoftext|> pad={0} eos={0} unk={0}".format("<|endoftext|>")
# The encoder does not read the start token, which is added.
SIGLIP = "eos=</s> pad=</s> eos=</s> unk=<unk>"
GEMMA = "bos=<bos> pad=<pad> eos=<eos> unk=<unk>"
BERTS = "BertTokenizer DistilBertTokenizer ElectraTokenizer"
PAIRS = (JSON, "vocab.json", "merges.txt")
# By `Tokens.kind`.
FAMILIES = {
    "byte_bpe": Family("RobertaTokenizer", PAIRS, ROBERTA, roberta, True),
    "wordpiece": Family(BERTS, (JSON, "vocab.txt"), BERT, bert),
    "xlm_roberta": Family(
        "XLMRobertaTokenizer", (JSON, XLM_PIECES), XLM, xlm_roberta, True
    ),
    "clip": Family("CLIPTokenizer", PAIRS, CLIP, clip, True),
    "siglip": Family("SiglipTokenizer", ("spiece.model", JSON), SIGLIP, siglip),
    "gemma": Family(
        "Siglip2Tokenizer", (JSON,), GEMMA, gemma, padding_side="left"
    ),
    "deberta": Family("DebertaV2Tokenizer", (JSON, "spm.model"), BERT, deberta),
    "albert": Family("AlbertTokenizer", (JSON, "spiece.model"), ALBERT, albert),
}
# By the name of a class.
CLASSES = {n: f for f in FAMILIES.values() for n in f.classes.split()}
