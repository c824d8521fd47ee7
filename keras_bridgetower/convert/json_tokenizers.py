"""Reads tokenizers of the class `BridgeTowerJsonTokenizer` from folders."""

import dataclasses

from keras_bridgetower.convert import sentencepiece_files
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.preprocessing.json_tokenizer import (
    BridgeTowerJsonTokenizer,
)
from keras_bridgetower.preprocessing.tokenizer import read_merges
from keras_bridgetower.presets.errors import ConversionError

JSON = "tokenizer.json"
# What CLIP takes for a word.
CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
    r"|[^\s\p{L}\p{N}]+"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the tokenizer of one model type is found in a folder.

    Args:
        special: tuple of `(key, token)`, in the order start, padding, end,
            unknown and, if there is one, mask: the key of the token in
            tokenizer_config.json, and its default.
        files: tuple of `(name, function)`. The first file that exists is
            used. The function takes its path, the special tokens and the
            values of tokenizer_config.json, and returns the values of a
            `tokenizer.json`.
        ends_twice: bool, whether two end tokens stand between two texts.
        adds_start, has_segments: bool, as of `BridgeTowerJsonTokenizer`.
    """

    special: tuple
    files: tuple
    ends_twice: bool = False
    adds_start: bool = False
    has_segments: bool = False

    def read(self, folder, sequence_length):
        """Return the tokenizer in a folder, or None if there are no files."""
        config = read_if_there(folder / "special_tokens_map.json")
        config |= read_if_there(folder / "tokenizer_config.json")
        special = [
            _content(config.get(key) or token) for key, token in self.special
        ]
        paths = ((folder / name, read) for name, read in self.files)
        found = next(((p, read) for p, read in paths if p.is_file()), None)
        if found is None:
            return None
        path, read = found
        made = read(path, special, config)
        tokenizer = BridgeTowerJsonTokenizer(
            None,
            special,
            special[2:3] * self.ends_twice,
            self.adds_start,
            self.has_segments,
            sequence_length,
        )
        tokenizer.set_vocabulary(made)
        _check_packing(made.get("post_processor"), tokenizer, config, path)
        _check_added(folder, config, tokenizer)
        # A damaged table of characters is only found when it is used.
        tokenizer.token_lists(["A ｆéw 漢字, 12 кот ñ ﬁ\u0301 😀"])
        return tokenizer


def as_it_is(path, special, config):
    """Return the values of a `tokenizer.json`."""
    return read_json(path)


def clip_json(path, special, config):
    """Return the values for CLIP; their decoder turns word ends to spaces."""
    return {**read_json(path), "decoder": _clip_decoder()}


def siglip2_json(path, special, config):
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


def read_if_there(path):
    """Return the object in a JSON file, `{}` if there is no such file."""
    return read_json(path) if path.is_file() else {}


def _content(token):
    return token["content"] if isinstance(token, dict) else token


def _check_packing(processor, tokenizer, config, path):
    """Compare the packing in a file with that of the text encoder."""
    start, _, end, *_ = tokenizer.special_tokens
    one = [None, end] if tokenizer.adds_start else [start, None, end]
    pair = [*one, *tokenizer.between, None, end]
    if "add_bos_token" in config or "add_eos_token" in config:
        # transformers then ignores what tokenizer.json says.
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
    """Reject tokens of other files that the tokenizer does not have."""
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


_XLM_ROBERTA = (
    ("bos_token", "<s>"),
    ("pad_token", "<pad>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("mask_token", "<mask>"),
)
_CLIP = (
    ("bos_token", "<|startoftext|>"),
    ("pad_token", "<|endoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
)
_SIGLIP = (
    # It has no start token: this stands where the encoder does not look.
    ("eos_token", "</s>"),
    ("pad_token", "</s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
)
_SIGLIP2 = (
    ("bos_token", "<bos>"),
    ("pad_token", "<pad>"),
    ("eos_token", "<eos>"),
    ("unk_token", "<unk>"),
)
_DEBERTA = (
    ("cls_token", "[CLS]"),
    ("pad_token", "[PAD]"),
    ("sep_token", "[SEP]"),
    ("unk_token", "[UNK]"),
    ("mask_token", "[MASK]"),
)
_ALBERT = (
    ("cls_token", "[CLS]"),
    ("pad_token", "<pad>"),
    ("sep_token", "[SEP]"),
    ("unk_token", "<unk>"),
    ("mask_token", "[MASK]"),
)
XLM_ROBERTA = Source(
    _XLM_ROBERTA,
    (
        (JSON, as_it_is),
        ("sentencepiece.bpe.model", sentencepiece_files.xlm_roberta),
    ),
    ends_twice=True,
)
CLIP = Source(
    _CLIP,
    ((JSON, clip_json), ("vocab.json", clip_lists)),
    ends_twice=True,
)
SIGLIP = Source(
    _SIGLIP,
    # transformers does not read the other one.
    (("spiece.model", sentencepiece_files.siglip), (JSON, as_it_is)),
    adds_start=True,
)
SIGLIP2 = Source(_SIGLIP2, ((JSON, siglip2_json),), adds_start=True)
DEBERTA = Source(
    _DEBERTA, ((JSON, as_it_is), ("spm.model", sentencepiece_files.deberta))
)
ALBERT = Source(
    _ALBERT,
    ((JSON, as_it_is), ("spiece.model", sentencepiece_files.albert)),
    has_segments=True,
)
