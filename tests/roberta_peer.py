"""transformers' RoBERTa with the published files, and strings for it."""

import json
import os
import pathlib
import random

import pytest


def shared_data():
    """The folder `shared/data` beside the checkout, where there is one."""
    named = os.environ.get("KBT_SHARED")
    parents = pathlib.Path(__file__).resolve().parents
    for folder in [pathlib.Path(named)] if named else parents:
        if (folder / "shared" / "data").is_dir():
            return folder / "shared" / "data"
        if (folder / "data" / "roberta").is_dir():
            return folder / "data"
    return None


def random_strings(count):
    rng = random.Random(7)
    parts = (
        "a man rides a horse|what color is the shape?|o'don|It's 2015  ok|we'll"
        "|DON'T|  two  spaces  |\ttab\t|new\nline\r\n|3.14159|1,000,000|007|é"
        "|naïve café|Straße|日本語のテキスト|한국어|😀|👩‍👩‍👧|🇫🇷|שלום עולם|مر"
        "|«guillemets»|“quotes”|''|\"|`code`|<b>|</i>|&amp;|#hash|@user|http://a.b"
        "|\u00a0nbsp|\u3000|\u200b|e\u0301|…|—|_under_score_|CamelCase|x=y**2"
        "|\u2028|Ġ|Ċ|�|\x7f|\x01|\U0010ffff|a  a|?!?!|(see fig. 2)"
    ).split("|")
    letters = "abcdefghijklmnopqrstuvwxyz '\"0123456789.,\n  é"
    texts = list(parts)
    while len(texts) < count:
        kind = rng.random()
        if kind < 0.6:
            joint = rng.choice([" ", "  ", "", ", ", "\n"])
            text = joint.join(rng.choices(parts, k=rng.randint(1, 6)))
        elif kind < 0.9:
            text = "".join(rng.choices(letters, k=rng.randint(1, 60)))
        else:
            codes = rng.choices(range(1, 0xD7FF), k=rng.randint(1, 20))
            text = "".join(map(chr, codes))
        texts.append(text)
    return [text for text in texts if text.strip()]


def published_peer():
    """transformers' RoBERTa as published: `<mask>` takes the space before."""
    transformers = pytest.importorskip("transformers")
    folder = shared_data() / "roberta"
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    return transformers.RobertaTokenizer(
        vocab=json.loads((folder / "vocab.json").read_text("utf-8")),
        merges=[tuple(line.split(" ")) for line in lines[1:] if line],
        mask_token=transformers.AddedToken("<mask>", lstrip=True),
    )


def packed(length=50):
    return dict(
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="np",
    )
