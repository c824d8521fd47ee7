"""Reads tokenizers of the class `BridgeTowerJsonTokenizer` from folders."""

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
    path, values_of = found
    values = values_of(path, special, config)
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
    # A damaged table of characters is only found when it is used.
    tokenizer.token_lists(["A ｆéw 漢字, 12 кот ñ ﬁ\u0301 😀"])
    return tokenizer


def as_it_is(path, special, config):
    """Return the values of a `tokenizer.json`."""
    return read_json(path)


def clip_json(path, special, config):
    """Return the values for CLIP; their decoder turns word ends to spaces."""
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


# By `Tokens.kind`, the files as `read` takes them.
FILES = {
    "xlm_roberta": (
        (JSON, as_it_is),
        ("sentencepiece.bpe.model", sentencepiece_files.xlm_roberta),
    ),
    "clip": ((JSON, clip_json), ("vocab.json", clip_lists)),
    # transformers does not read the other one.
    "siglip": (
        ("spiece.model", sentencepiece_files.siglip),
        (JSON, as_it_is),
    ),
    "gemma": ((JSON, gemma_json),),
    "deberta": (
        (JSON, as_it_is),
        ("spm.model", sentencepiece_files.deberta),
    ),
    "albert": (
        (JSON, as_it_is),
        ("spiece.model", sentencepiece_files.albert),
    ),
}
