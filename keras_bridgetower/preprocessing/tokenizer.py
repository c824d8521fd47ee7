"""Tokenizers of RoBERTa (byte-level BPE) and BERT (WordPiece)."""

import io
import os

import keras
import tokenizers

from keras_bridgetower.files import read_json
from keras_bridgetower.files import read_text
from keras_bridgetower.preprocessing.packed_tokenizer import PackedTokenizer
from keras_bridgetower.preprocessing.packed_tokenizer import check_size
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
        words = read_words(vocabulary)
        engine = tokenizers.Tokenizer(
            tokenizers.models.WordPiece(
                vocab={word: i for i, word in enumerate(words)},
                unk_token="[UNK]",
            )
        )
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
