"""Tokenizers of RoBERTa (byte-level BPE), BERT (WordPiece), and all others."""

import base64
import io
import itertools
import json
import math
import os

import keras
import tokenizers

from keras_bridgetower.files import read_json
from keras_bridgetower.files import read_text
from keras_bridgetower.preprocessing.packed_tokenizer import ENGINE_FILE
from keras_bridgetower.preprocessing.packed_tokenizer import PackedTokenizer
from keras_bridgetower.preprocessing.packed_tokenizer import check_size
from keras_bridgetower.preprocessing.packed_tokenizer import without_panics
from keras_bridgetower.preprocessing.texts import MASK_TOKEN
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

VOCABULARY_FILE = "vocabulary.json"
MERGES_FILE = "merges.txt"
WORDS_FILE = "vocabulary.txt"
# In this order: start, padding, end, unknown, mask.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", MASK_TOKEN)
BERT_SPECIAL_TOKENS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
# Prefix of BERT's tokens that continue a word.
CONTINUES = "##"


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTokenizer(PackedTokenizer):
    """Byte-level BPE as in RoBERTa, packed as `<s> ... </s> <pad> ...`.

    Ids equal those of `transformers.RobertaTokenizer`, except that a special
    token in a text is read as plain text (only `encode_with_masks` reads
    `<mask>`). The same code runs eagerly and, through `tf.numpy_function`, in a
    TensorFlow graph such as `tf.data.Dataset.map`.

    Args:
        vocabulary: path of a JSON file, or dict, from token to id. Ids run
            from 0 without gaps; `<s>`, `<pad>`, `</s>`, `<unk>` and `<mask>`
            are among the tokens. `None`, as `merges`: `load_assets` sets both.
        merges: path of a text file with one merge a line, or list of strings
            such as `"h e"`, the most frequent merge first.
        sequence_length: int, tokens in each packed text, including `<s>` and
            `</s>`. Longer texts are cut, with one warning a call.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        texts: string or UTF-8 bytes, or a list, NumPy array or string tensor
            of them with one axis.

    Returns:
        int32 token ids, `(sequence_length,)` for one text and
        `(B, sequence_length)` for several: a NumPy array, in a graph a
        `tf.Tensor` of that static shape. `encode` returns a dict with
        `"token_ids"` and `"padding_mask"`, the mask int32, 1 on tokens;
        `encode_with_masks` and `encode_pairs` likewise.

    Raises:
        ValueError: a text is empty, is not text, has a NUL character or has
            more than 100,000 characters; or the vocabulary lacks special
            tokens or products of merges.

    Example:

    ```python
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens = specials + ["h", "i", "hi", "!"]
    tokenizer = BridgeTowerTokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)},
        merges=["h i"],
        sequence_length=6,
    )
    tokenizer("hi!")  # [0, 7, 8, 2, 1, 1]
    tokenizer.detokenize(tokenizer(["hi!", "hi"]))  # ["hi!", "hi"]
    ```

    Source: RoBERTa (Liu et al., 2019) and its released vocabulary files.
    """

    special_tokens = list(SPECIAL_TOKENS)
    between = ("</s>",)

    def __init__(
        self, vocabulary=None, merges=None, sequence_length=50, **kwargs
    ):
        super().__init__(sequence_length, **kwargs)
        self.file_assets = [VOCABULARY_FILE, MERGES_FILE]
        if vocabulary is not None:
            self._set_vocabulary(vocabulary, merges)

    def _set_vocabulary(self, vocabulary, merges):
        vocabulary = read_vocabulary(vocabulary)
        merges = read_merges(merges)
        model = tokenizers.models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>"
        )
        engine = tokenizers.Tokenizer(model)
        engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
            add_prefix_space=False
        )
        engine.decoder = tokenizers.decoders.ByteLevel()
        self._set_engine(engine)

    def save_assets(self, dir_path):
        """Write the vocabulary's files into a folder."""
        # The engine writes `vocab.json` and `merges.txt`.
        vocabulary, _ = self._engine.model.save(str(dir_path))
        os.replace(vocabulary, os.path.join(dir_path, VOCABULARY_FILE))

    def load_assets(self, dir_path):
        """Load the vocabulary from the files of `save_assets`."""
        paths = (os.path.join(dir_path, name) for name in self.file_assets)
        self._set_vocabulary(*paths)


def read_vocabulary(vocabulary):
    if not isinstance(vocabulary, dict):
        vocabulary = read_json(vocabulary, LARGEST_ASSET)
    check_size(len(vocabulary))
    missing = set(SPECIAL_TOKENS) - set(vocabulary)
    # With a gap or a repeated id, an id could exceed the embedding's rows.
    ids = set(vocabulary.values())
    if missing or ids != set(range(len(vocabulary))):
        raise ValueError(
            "`vocabulary` must have each id from 0 once, and all special "
            f"tokens. Received: {len(ids)} ids, without {missing}"
        )
    return vocabulary


def read_merges(merges):
    if isinstance(merges, (str, os.PathLike)):
        lines = read_lines(merges)
        merges = [x for x in lines if x and not x.startswith("#version")]
    pairs = [tuple(x.split(" ") if isinstance(x, str) else x) for x in merges]
    for i, pair in enumerate(pairs):
        # With a merge into a special token, a text could contain it.
        if len(pair) != 2 or "".join(pair) in SPECIAL_TOKENS:
            raise ValueError(
                "`merges` must be pairs of tokens, none a special token. "
                f"Received: merges[{i}]={merges[i]!r}"
            )
    return pairs


def read_words(vocabulary):
    if isinstance(vocabulary, (str, os.PathLike)):
        vocabulary = read_lines(vocabulary)
    words = list(vocabulary)
    check_size(len(words))
    missing = set(BERT_SPECIAL_TOKENS) - set(words)
    if missing or len(set(words)) < len(words):
        raise ValueError(
            "`vocabulary` must list each token once, and all special ones. "
            f"Received: {len(words)} tokens, without {missing}"
        )
    return words


def read_lines(path):
    # `str.splitlines` also splits at other characters, which tokens may have.
    text = io.StringIO(read_text(path, LARGEST_ASSET), newline="\n")
    return [line.rstrip("\r\n") for line in text]


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerBertTokenizer(PackedTokenizer):
    """WordPiece as in BERT, packed as `[CLS] ... [SEP] [PAD] ...`.

    Ids equal those of `transformers.BertTokenizer`, except that a special token
    in a text is read as plain text (only `encode_with_masks` reads `<mask>`,
    which is the same for every tokenizer). Calls, results and errors are those
    of `BridgeTowerTokenizer`.

    Args:
        vocabulary: path of a text file with one token a line, or list of
            distinct tokens, in the order of their ids; `[CLS]`, `[PAD]`,
            `[SEP]`, `[UNK]` and `[MASK]` are among them. `None`:
            `load_assets` sets it.
        lowercase: bool, whether the vocabulary is uncased: texts are lowered
            and accents removed.
        sequence_length, **kwargs: as in `BridgeTowerTokenizer`.
        has_segments: bool, whether the encoder reads `segment_ids`: BERT and
            ELECTRA do, DistilBERT does not.

    Example:

    ```python
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = BridgeTowerBertTokenizer(
        specials + ["play", "##ing", "!"], sequence_length=6
    )
    tokenizer("Playing!")  # [2, 5, 6, 7, 3, 0]
    tokenizer.detokenize(tokenizer("Playing!"))  # "playing!"
    ```

    Source: BERT (Devlin et al., 2019) and its released vocabulary files.
    """

    special_tokens = list(BERT_SPECIAL_TOKENS)
    has_segments = True

    def __init__(
        self,
        vocabulary=None,
        lowercase=True,
        sequence_length=50,
        has_segments=True,
        **kwargs,
    ):
        super().__init__(sequence_length, **kwargs)
        self.lowercase = lowercase
        self.has_segments = bool(has_segments)
        self.file_assets = [WORDS_FILE]
        if vocabulary is not None:
            self._set_vocabulary(vocabulary)

    def _set_vocabulary(self, vocabulary):
        ids = {word: i for i, word in enumerate(read_words(vocabulary))}
        model = tokenizers.models.WordPiece(vocab=ids, unk_token="[UNK]")
        engine = tokenizers.Tokenizer(model)
        engine.normalizer = tokenizers.normalizers.BertNormalizer(
            lowercase=self.lowercase
        )
        engine.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        engine.decoder = tokenizers.decoders.WordPiece(prefix=CONTINUES)
        self._set_engine(engine)

    def reading(self):
        """Return a plain value on which ids depend, besides the vocabulary."""
        return self.lowercase

    def save_assets(self, dir_path):
        """Write the vocabulary's files into a folder."""
        path = os.path.join(dir_path, WORDS_FILE)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{word}\n" for word in self.get_vocabulary())

    def load_assets(self, dir_path):
        """Load the vocabulary from the files of `save_assets`."""
        self._set_vocabulary(os.path.join(dir_path, WORDS_FILE))

    def get_config(self):
        # Older files do not have it.
        more = {} if self.has_segments else {"has_segments": False}
        return {**super().get_config(), "lowercase": self.lowercase, **more}


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
