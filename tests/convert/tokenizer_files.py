"""Tokenizer files as they were and are published, made of two lists."""

import json
import pathlib

ROBERTA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "roberta"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# Enough for a few words, where RoBERTa's own lists are not at hand.
MERGES = [
    *("Ġ c", "a t", "Ġc at", "Ġ d", "o g", "Ġd og", "t w", "tw o", "r e"),
    *("re d", "Ġ red", "Ġ a"),
]


def few_words():
    """A vocabulary and merges of a few words, with RoBERTa's special tokens."""
    letters = "Ġabcdefghijklmnopqrstuvwxyz?.,"
    tokens = [*SPECIAL[:4], *letters, *(m.replace(" ", "") for m in MERGES)]
    return {t: i for i, t in enumerate([*tokens, "<mask>"])}, MERGES


def whole(words, merges, **model):
    """The values of a tokenizer.json as RoBERTa's first one: no model type."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": words[token],
                "special": True,
                "content": token,
                "single_word": False,
                "lstrip": token == "<mask>",
                "rstrip": False,
                "normalized": token != "<mask>",
            }
            for token in SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", words["</s>"]],
            "cls": ["<s>", words["<s>"]],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
        },
        "model": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": words,
            "merges": merges,
            **model,
        },
    }


def dump(path, values, indent=None):
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    path.write_text(text, encoding="utf-8")


def write(folder, form, words, merges):
    """Write the files of one of the `FORMS` into a folder."""
    folder.mkdir(exist_ok=True)
    FORMS[form](folder, words, merges)
    return folder


def _published(folder, words, merges, indent=None):
    dump(folder / "tokenizer.json", whole(words, merges), indent)
    dump(folder / "vocab.json", words, indent)


def _lists(folder, words, merges):
    dump(folder / "vocab.json", words)
    lines = ["#version: 0.2", *merges, ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def _old(folder, words, merges):
    """Write a fast tokenizer in the form of transformers 4."""
    _lists(folder, words, merges)
    values = whole(words, merges, type="BPE", byte_fallback=False)
    dump(folder / "tokenizer.json", values)
    config = {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"}
    dump(folder / "tokenizer_config.json", config)


def _new(folder, words, merges):
    """Write it in the form of transformers 5."""
    import transformers

    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = transformers.RobertaTokenizer(vocab=words, merges=pairs)
    made.save_pretrained(folder)


def _pairs(folder, words, merges):
    values = whole(words, [merge.split(" ") for merge in merges], type="BPE")
    dump(folder / "tokenizer.json", values)


FORMS = {
    "published": _published,
    "published, indented": lambda *given: _published(*given, indent=4),
    "lists alone": _lists,
    "saved by transformers 4": _old,
    "saved by transformers 5": _new,
    "merges in pairs": _pairs,
}
