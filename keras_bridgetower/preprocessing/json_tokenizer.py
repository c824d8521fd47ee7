"""Tokenizers of other text encoders, from a file `tokenizer.json`."""

import base64
import itertools
import json
import math
import os

import keras
import tokenizers

from keras_bridgetower.files import read_json
from keras_bridgetower.preprocessing.packed_tokenizer import ENGINE_FILE
from keras_bridgetower.preprocessing.packed_tokenizer import PackedTokenizer
from keras_bridgetower.preprocessing.packed_tokenizer import check_size
from keras_bridgetower.preprocessing.packed_tokenizer import without_panics
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

# Prefix of a special token in the engine: texts have no NUL, so they cannot
# contain a special token.
HIDDEN = "\0"
# Characters that rules may make of one. SigLIP's make at most 5,000, by the
# bounds below.
MOST_GROWTH = 50_000
# Of normalizers and pre-tokenizers without a `content`, if it is not 1.
GROWTH = {
    **dict.fromkeys(("NFC", "NFD", "ByteLevel"), 4),
    **dict.fromkeys(("NFKC", "NFKD", "BertNormalizer"), 18),
    **dict.fromkeys(("Lowercase", "Metaspace"), 2),
}


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerJsonTokenizer(PackedTokenizer):
    """Tokenizer of a `tokenizer.json` with BPE, Unigram or WordPiece.

    CLIP, SigLIP, SigLIP 2, MetaCLIP 2, XLM-R, DeBERTa and ALBERT have one, and
    RoBERTa and BERT with added or other special tokens, or other rules. The
    special tokens and the packing are arguments, which `convert.unimodal.
    tokenizer` reads from a `transformers` folder. A special token in a text is
    read as plain text (only `encode_with_masks` reads `<mask>`, which is the
    same for every tokenizer). Calls, results and errors are those of
    `BridgeTowerTokenizer`.

    Args:
        vocabulary: path of a `tokenizer.json`, or dict of its values. Its
            truncation, padding and packing are not used. `None`:
            `load_assets` sets it.
        special_tokens: list of str, the tokens of start, padding, end,
            unknown and, if there is one, mask.
        between: list of str, tokens between two texts, after the end token of
            the first.
        adds_start: bool, whether the encoder was trained without a start
            token. The packed text then has one that the encoder does not see.
        has_segments: bool, whether the encoder reads `segment_ids`.
        sequence_length, **kwargs: as in `BridgeTowerTokenizer`.

    Example:

    ```python
    pieces = [["<s>", 0], ["<pad>", 0], ["</s>", 0], ["<unk>", 0]]
    tokenizer = BridgeTowerJsonTokenizer(
        {"model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": pieces + [["hi", -1], ["!", -1]],
        }},
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        sequence_length=6,
    )
    tokenizer("hi!")  # [0, 4, 5, 2, 1, 1]
    ```

    Source: the library `tokenizers`.
    """

    def __init__(
        self,
        vocabulary=None,
        special_tokens=("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        between=(),
        adds_start=False,
        has_segments=False,
        sequence_length=50,
        **kwargs,
    ):
        super().__init__(sequence_length, **kwargs)
        self.special_tokens = list(special_tokens)
        if len(self.special_tokens) not in (4, 5):
            raise ValueError(
                "`special_tokens` must be those of start, padding, end, "
                "unknown and, if there is one, mask. "
                f"Received: special_tokens={special_tokens!r:.200}"
            )
        self.between = tuple(between)
        self.adds_start = bool(adds_start)
        self.has_segments = bool(has_segments)
        self.file_assets = [ENGINE_FILE]
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    def set_vocabulary(self, vocabulary):
        """Replace the vocabulary.

        In contrast to the constructor, whose values Keras walks through, this
        is fast for a dict of a large vocabulary.

        Args:
            vocabulary: path or dict, as in the constructor.
        """
        if not isinstance(vocabulary, dict):
            vocabulary = read_json(vocabulary, LARGEST_ASSET)
        self._set_engine(build_engine(vocabulary, self.special_tokens))

    def reading(self):
        """Return a plain value on which ids depend, besides the vocabulary."""
        return [self.special_tokens, self.between, self._engine.to_str()]

    def token_to_id(self, token):
        hidden = self._engine.token_to_id(HIDDEN + token)
        return super().token_to_id(token) if hidden is None else hidden

    def id_to_token(self, id):
        return super().id_to_token(id).removeprefix(HIDDEN)

    def get_vocabulary(self):
        return [
            token.removeprefix(HIDDEN) for token in super().get_vocabulary()
        ]

    def save_assets(self, dir_path):
        """Write the engine's file into a folder."""
        self.save_engine(dir_path)

    def load_assets(self, dir_path):
        """Load the engine from the file of `save_assets`."""
        path = os.path.join(dir_path, ENGINE_FILE)
        values = read_json(path, LARGEST_ASSET)
        engine = _engine({**values, "truncation": None, "padding": None})
        hidden = [HIDDEN + token for token in self.special_tokens]
        if None in map(engine.token_to_id, hidden):
            raise ValueError(
                f"{ENGINE_FILE} must have the special tokens, hidden from "
                f"texts. Received: special_tokens={self.special_tokens!r:.200}"
            )
        self._set_engine(engine)

    def get_config(self):
        return {
            **super().get_config(),
            "special_tokens": self.special_tokens,
            "between": list(self.between),
            "adds_start": self.adds_start,
            "has_segments": self.has_segments,
        }


def build_engine(values, special_tokens):
    """Build a `tokenizers.Tokenizer` that finds no special token in a text.

    Args:
        values: dict, the values of a `tokenizer.json`; damaged ones raise an
            error of any type.
        special_tokens: list of str. The engine hides them, and all that the
            file marks as special.
    """
    model = dict(values["model"])
    vocabulary = model["vocab"]
    check_size(len(vocabulary))
    # The first versions of the file do not name the type.
    kind = "Unigram" if isinstance(vocabulary, list) else "WordPiece"
    kind = model.setdefault("type", "BPE" if "merges" in model else kind)
    if kind not in ("BPE", "Unigram", "WordPiece"):
        raise ValueError(
            f"it must hold BPE, Unigram or WordPiece. Received: {kind!r:.60}"
        )
    added = sorted(values.get("added_tokens") or [], key=lambda t: t["id"])
    special = {token["content"] for token in added if token["special"]}
    special.update(special_tokens)
    if kind == "Unigram":
        names = [name for name, _ in vocabulary]
    else:
        names = in_order(vocabulary)
    known, kept = set(names), []
    for token in added:
        name = token["content"]
        if name not in known and token["id"] != len(known):
            raise ValueError("its added tokens must follow the vocabulary")
        if name not in special:
            kept.append(token)
        elif name not in known:
            # Not in the model, which could find it in a text.
            hidden = {"content": HIDDEN + name, "normalized": False}
            kept.append({**token, **hidden})
        known.add(name)
    names = [HIDDEN + name if name in special else name for name in names]
    if kind == "Unigram":
        scores = [score for _, score in vocabulary]
        model["vocab"] = list(zip(names, scores, strict=True))
    else:
        model["vocab"] = {name: i for i, name in enumerate(names)}
        unknown = model.get("unk_token")
        model["unk_token"] = HIDDEN + unknown if unknown in special else unknown
    if kind == "BPE":
        model["merges"] = _without(special, model["merges"])
    unset = dict.fromkeys(("normalizer", "pre_tokenizer", "decoder"))
    own = {"version": "1.0", "added_tokens": kept, "model": model}
    own |= dict.fromkeys(("truncation", "padding", "post_processor"))
    return _engine(unset | values | own)


def _engine(values):
    """Build a `tokenizers.Tokenizer` from all values of its file."""
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if growth(values.get(part) or {}) > MOST_GROWTH:
            raise ValueError(
                f"`{part}` of a tokenizer must make a text at most "
                f"{MOST_GROWTH:,} times as long"
            )
    check_size(len(values["model"]["vocab"]))
    with without_panics():
        return tokenizers.Tokenizer.from_str(json.dumps(values))


def growth(step):
    """Return the most characters that a step can make of one."""
    kind, pattern = step.get("type"), step.get("pattern") or {}
    if kind == "Sequence":
        lists = (v for v in step.values() if isinstance(v, list))
        return math.prod(map(growth, itertools.chain(*lists)))
    if kind == "Precompiled":
        table = base64.b64decode(step["precompiled_charsmap"])
        size = int.from_bytes(table[:4], "little")
        return max(map(len, table[4 + size :].decode().split("\0")))
    added = len(step.get("content") or step.get("prepend") or "")
    if kind == "Replace" and "String" in pattern:
        return max(1, added / max(1, len(pattern["String"])))
    return GROWTH.get(kind, 1 + added)


def in_order(vocabulary):
    """Return the tokens of a dict, in the order of their ids."""
    names = sorted(vocabulary, key=vocabulary.get)
    if [vocabulary[name] for name in names] != list(range(len(names))):
        raise ValueError("its vocabulary must have each id from 0 once")
    return names


def _without(special, merges):
    """Return the merges in which no special token occurs or results."""
    pairs = [tuple(m.split(" ") if isinstance(m, str) else m) for m in merges]
    return [p for p in pairs if not special & {*p, "".join(p)}]
