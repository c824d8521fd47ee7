"""Small tokenizer folders of each text encoder, trained by their own tools."""

import io
import json
import random
import unicodedata

import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import trainers

WORDS = (
    "the a cat dog red green photo of two people running in park Straße café "
    "naïve Ünïcode 漢字 日本語 中文 测试 한국어 Привет мир ΟΔΟΣ Σίσυφος hello "
    "12345 2026 3.14 don't it's we're U.S.A. e-mail #tag @user 😀 👩‍👩‍👧 🇩🇪 "
    "ﬁne ｆｕｌｌ ① ½ ª ñ İstanbul ǅ ß क्षि ไทย שלום مرحبا ``quoted'' Tiếng 🏳️‍🌈"
).split()
SPACES = (" ", " ", " ", "  ", "", "\n", "\t ", "\u00a0", "\u3000", "\u200b")
# Parts of Unicode.
RANGES = (
    *((1, 32), (32, 127), (0xA0, 0x250), (0x370, 0x378), (0x391, 0x3A2)),
    *((0x400, 0x460), (0x4E00, 0x4E40), (0x1F600, 0x1F640), (0x2010, 0x2028)),
    *((0x3041, 0x3097), (0x30A1, 0x30FB), (0xAC00, 0xAC40)),
)
ALPHABET = [chr(c) for start, stop in RANGES for c in range(start, stop)]
ODD = [
    *("  leading", "trailing  ", "a\tb\nc\r\nd", "\ufeffmark", "x\x85y\x1cz"),
    *("!!!", "?! ...", "…", "_", "a_b", "#", "''", "1,000,000", "word " * 300),
    *("x" * 5000, "漢" * 700, "\u2028line", "a\u0323\u0301b", "ΑΣ ΑΣ' ΑΣ'Α Σ"),
    *("\ufffd\ufffd", "<a>", "[b]", "é", "e\u0301", "각", "\u1100\u1161\u11a8"),
]


def texts(count, seed=0, odd=True):
    """Draw texts of words and characters; half of the accents decomposed."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        text = ""
        for _ in range(rng.randint(1, 12)):
            word = rng.choice(WORDS)
            if rng.random() < 0.3:
                word = "".join(rng.choices(ALPHABET, k=rng.randint(1, 6)))
            word = word.upper() if rng.random() < 0.1 else word
            text += word + rng.choice(SPACES)
        form = "NFD" if rng.random() < 0.5 else "NFC"
        if text.strip() and "<" not in text:
            found.append(unicodedata.normalize(form, text))
    return [*found, *ODD] if odd else found


def dump(folder, name, values, indent=None):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(values, indent=indent), "utf-8")


def _pieces(name, **kwargs):
    """Return a function that trains a file of SentencePiece in a folder."""

    def write(folder):
        written = io.BytesIO()
        lines = (text.replace("\n", " ") for text in texts(600, odd=False))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=written,
            vocab_size=1000,
            character_coverage=0.98,
            hard_vocab_limit=False,
            minloglevel=2,
            user_defined_symbols="@user",
            **kwargs,
        )
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(written.getvalue())

    return write


def _trained(engine, trainer):
    engine.train_from_iterator(texts(600, odd=False), trainer)
    return json.loads(engine.to_str())["model"]


FAIRSEQ = dict(unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
xlm_roberta = _pieces("sentencepiece.bpe.model", **FAIRSEQ)
OF_BERT = dict(pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]")
OF_BERT |= dict(unk_piece="[UNK]", pad_id=0, bos_id=1, eos_id=2, unk_id=3)
deberta = _pieces("spm.model", **OF_BERT)
ADDED = dict(control_symbols="[CLS],[SEP],[MASK]", bos_id=-1, eos_id=-1)
albert = _pieces("spiece.model", pad_id=0, unk_id=1, **ADDED)
siglip = _pieces("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def clip(folder):
    engine = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        show_progress=False,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    model = _trained(engine, trainer)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = [" ".join(pair) for pair in model["merges"]]
    tokens += ["".join(pair) for pair in model["merges"]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokens = list(dict.fromkeys(tokens))
    dump(folder, "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def byte_pairs(folder):
    """As CLIP's, with the tokens of RoBERTa."""
    clip(folder)
    values = json.loads((folder / "vocab.json").read_text())
    names = [name for name in values if "</w>" not in name and "<|" not in name]
    names = ["<s>", "<pad>", "</s>", "<unk>", *names, "<mask>"]
    dump(folder, "vocab.json", {name: i for i, name in enumerate(names)})
    merges = (folder / "merges.txt").read_text().splitlines()
    kept = [merge for merge in merges if "</w>" not in merge]
    (folder / "merges.txt").write_text("\n".join(kept))


def siglip2(folder):
    engine = tokenizers.Tokenizer(models.BPE(byte_fallback=True))
    engine.normalizer = normalizers.Replace(" ", "▁")
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, show_progress=False, limit_alphabet=400
    )
    model = _trained(engine, trainer)
    tokens = [*first, *(f"<0x{i:02X}>" for i in range(256)), *model["vocab"]]
    made = transformers.Siglip2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(pair) for pair in model["merges"]],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
    )
    made.save_pretrained(folder)


def word_pieces(folder):
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer()
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=900,
        show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    )
    ids = _trained(engine, trainer)["vocab"]
    folder.mkdir(exist_ok=True)
    lines = [f"{token}\n" for token in sorted(ids, key=ids.get)]
    (folder / "vocab.txt").write_text("".join(lines), "utf-8")


# By model type: what writes its files.
FILES = {
    "xlm-roberta": xlm_roberta,
    "metaclip_2": xlm_roberta,
    "deberta-v2": deberta,
    "albert": albert,
    "siglip": siglip,
    "siglip2": siglip2,
    "clip": clip,
    "distilbert": word_pieces,
    "electra": word_pieces,
}


# Kinds of which other tests compare most.
MORE = {"bert": word_pieces, "roberta": byte_pairs}


def write(folder, kind, saved=False):
    """Write a folder of a model type; `saved`: as transformers saves it.

    Returns:
        the tokenizer of transformers for this folder.
    """
    (FILES | MORE)[kind](folder)
    dump(folder, "config.json", {"model_type": kind})
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    if saved:
        folder = folder / "saved"
        peer.save_pretrained(folder)
        dump(folder, "config.json", {"model_type": kind})
        peer = transformers.AutoTokenizer.from_pretrained(folder)
    return folder, peer


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


def _of_transformers(words, merges):
    pairs = [tuple(merge.split(" ")) for merge in merges]
    return transformers.RobertaTokenizer(vocab=words, merges=pairs)


def whole(words, merges, **model):
    """The values of a tokenizer.json as RoBERTa's first one: no model type."""
    engine = _of_transformers(words, merges).backend_tokenizer
    values = json.loads(engine.to_str())
    for name in ("type", "byte_fallback", "ignore_merges"):
        values["model"].pop(name)
    values["model"] |= {"merges": merges, **model}
    for part in ("pre_tokenizer", "decoder"):
        values[part].pop("use_regex")
    for token in values["added_tokens"]:
        is_mask = token["content"] == "<mask>"
        token |= {"lstrip": is_mask, "normalized": not is_mask}
    return values


def _published(folder, words, merges, indent=None):
    dump(folder, "tokenizer.json", whole(words, merges), indent)
    dump(folder, "vocab.json", words, indent)


def _lists(folder, words, merges):
    dump(folder, "vocab.json", words)
    lines = ["#version: 0.2", *merges, ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def _old(folder, words, merges):
    """Write a fast tokenizer in the form of transformers 4."""
    _lists(folder, words, merges)
    values = whole(words, merges, type="BPE", byte_fallback=False)
    dump(folder, "tokenizer.json", values)
    config = {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"}
    dump(folder, "tokenizer_config.json", config)


# RoBERTa's files as they were and are published: functions of a folder, a
# vocabulary and merges.
FORMS = {
    "published": _published,
    "published, indented": lambda *given: _published(*given, indent=4),
    "lists alone": _lists,
    "saved by transformers 4": _old,
    "saved by transformers 5": lambda folder, *given: _of_transformers(
        *given
    ).save_pretrained(folder),
}
