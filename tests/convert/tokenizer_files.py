"""Tokenizer files as they were and are published, made of two lists."""

import json

import transformers

# Enough for a few words, where RoBERTa's own lists are not at hand.
MERGES = [
    *("Ġ c", "a t", "Ġc at", "Ġ d", "o g", "Ġd og", "t w", "tw o", "r e"),
    *("re d", "Ġ red", "Ġ a"),
]


def few_words():
    """A vocabulary and merges of a few words, with RoBERTa's special tokens."""
    letters = "Ġabcdefghijklmnopqrstuvwxyz?.,"
    special = ("<s>", "<pad>", "</s>", "<unk>")
    tokens = [*special, *letters, *(m.replace(" ", "") for m in MERGES)]
    return {t: i for i, t in enumerate([*tokens, "<mask>"])}, MERGES


def whole(words, merges, **model):
    """The values of a tokenizer.json as RoBERTa's first one: no model type."""
    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = transformers.RobertaTokenizer(vocab=words, merges=pairs)
    values = json.loads(made.backend_tokenizer.to_str())
    for name in ("type", "byte_fallback", "ignore_merges"):
        values["model"].pop(name)
    values["model"] |= {"merges": merges, **model}
    for part in ("pre_tokenizer", "decoder"):
        values[part].pop("use_regex")
    for token in values["added_tokens"]:
        is_mask = token["content"] == "<mask>"
        token |= {"lstrip": is_mask, "normalized": not is_mask}
    return values


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
    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = transformers.RobertaTokenizer(vocab=words, merges=pairs)
    made.save_pretrained(folder)


FORMS = {
    "published": _published,
    "published, indented": lambda *given: _published(*given, indent=4),
    "lists alone": _lists,
    "saved by transformers 4": _old,
    "saved by transformers 5": _new,
}
