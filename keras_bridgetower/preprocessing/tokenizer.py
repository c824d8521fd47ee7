"""Text to token ids, with the ids RoBERTa was trained on."""

import os
import warnings

import keras
import keras_hub
import numpy as np
import tokenizers

from keras_bridgetower.backbone import BridgeTowerBackbone
from keras_bridgetower.preprocessing.graph import apply_numpy
from keras_bridgetower.preprocessing.graph import shape_of
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.texts import kept_lengths
from keras_bridgetower.preprocessing.texts import split_at_masks
from keras_bridgetower.preprocessing.vocabulary import SPECIAL_TOKENS
from keras_bridgetower.preprocessing.vocabulary import read_merges
from keras_bridgetower.preprocessing.vocabulary import read_vocabulary

VOCABULARY_FILE = "vocabulary.json"
MERGES_FILE = "merges.txt"


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTokenizer(keras_hub.tokenizers.Tokenizer):
    """Byte-level BPE as in RoBERTa, packed as `<s> ... </s> <pad> ...`.

    Ids equal those of `transformers.RobertaTokenizer`, except that a special
    token typed by a user is text like any other (`encode_with_masks` alone
    knows `<mask>`). The same code runs eagerly and, through
    `tf.numpy_function`, inside a TensorFlow graph such as
    `tf.data.Dataset.map`.

    Args:
        vocabulary: path of a JSON file, or dict, from token to id. Ids run
            from 0 without gaps; `<s>`, `<pad>`, `</s>`, `<unk>` and `<mask>`
            are among the tokens. `None`, as `merges`: `load_assets` sets both.
        merges: path of a text file with one merge a line, or list of strings
            such as `"h e"`, the first merge the most frequent.
        sequence_length: int. Tokens in each packed text, `<s>` and `</s>`
            included. Longer texts are cut, with one warning a call.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

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
        ValueError: A text is empty, is not text or holds a NUL character; or
            the vocabulary misses special tokens or products of merges.

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

    backbone_cls = BridgeTowerBackbone
    special_tokens = list(SPECIAL_TOKENS)

    def __init__(
        self, vocabulary=None, merges=None, sequence_length=50, **kwargs
    ):
        super().__init__(**kwargs)
        if type(sequence_length) is not int or sequence_length < 3:
            raise ValueError(
                "`sequence_length` must be an integer of at least 3, room "
                "for `<s>`, one token and `</s>`. Received: "
                f"sequence_length={sequence_length!r}"
            )
        if (vocabulary is None) != (merges is None):
            raise ValueError(
                "`vocabulary` and `merges` must be given together. Received: "
                f"vocabulary={vocabulary!r:.200}, merges={merges!r:.200}"
            )
        self.sequence_length = sequence_length
        self.file_assets = [VOCABULARY_FILE, MERGES_FILE]
        self._bpe = None
        self._name_special_ids([None] * len(SPECIAL_TOKENS))
        if vocabulary is not None:
            self._set_vocabulary(vocabulary, merges)
        self.built = True

    def _set_vocabulary(self, vocabulary, merges):
        vocabulary = read_vocabulary(vocabulary)
        merges = read_merges(merges)
        try:
            model = tokenizers.models.BPE(
                vocab=vocabulary, merges=merges, unk_token="<unk>"
            )
        except Exception as error:  # The library raises Exception itself.
            raise ValueError(
                f"`merges` must only use tokens of `vocabulary`. {error}"
            ) from error
        # Special tokens are not made known to the engine, so that it never
        # finds one in a text; they are placed by id, below.
        self._bpe = tokenizers.Tokenizer(model)
        self._bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
            add_prefix_space=False
        )
        self._bpe.decoder = tokenizers.decoders.ByteLevel()
        self._name_special_ids(self.special_token_ids)

    def _name_special_ids(self, ids):
        self.start_token_id, self.pad_token_id, self.end_token_id = ids[:3]
        self.unk_token_id, self.mask_token_id = ids[3:]

    @property
    def _engine(self):
        if self._bpe is None:
            raise ValueError(
                "`vocabulary` must be set before the tokenizer is used. "
                "Received: vocabulary=None. Pass `vocabulary` and `merges`, "
                "or call `load_assets(path)`."
            )
        return self._bpe

    def tokenize(self, texts):
        return self.encode(texts)["token_ids"]

    def call(self, texts):
        # The base class would turn every text into a TensorFlow tensor.
        return self.tokenize(texts)

    def encode(self, texts):
        """Token ids and padding mask, as described in the class."""
        return self._encode(self._ids_of, texts)

    def encode_with_masks(self, texts):
        """As `encode`, but `<mask>` in a text is the mask token.

        White space before it belongs to it, as in RoBERTa's published files:
        the token that fills the place brings its own.
        """
        return self._encode(self._ids_around_masks, texts)

    def encode_pairs(self, texts, second_texts):
        """As `encode`, of two texts each: `<s> a </s></s> b </s>`.

        Where they are too long together, the longer one is cut first.
        """
        return self._encode(self._ids_of, texts, second_texts)

    def _encode(self, ids_of, *parts):
        spec = ("int32", (*shape_of(parts[0]), self.sequence_length))
        ids, mask = apply_numpy(
            lambda *parts: self._pack(ids_of, parts), list(parts), spec, spec
        )
        return {"token_ids": ids, "padding_mask": mask}

    def _pack(self, ids_of, parts):
        """Join the parts of each row between special tokens, and pad."""
        names = ("text", "second_text")
        checked = [checked_texts(*p) for p in zip(parts, names, strict=False)]
        texts, single = checked[0]
        if any((len(t), s) != (len(texts), single) for t, s in checked):
            raise ValueError(
                "`text` and `second_text` must be of the same number. "
                f"Received: {len(texts)} and {len(checked[1][0])} texts"
            )
        columns = [ids_of(texts) for texts, _ in checked]
        size = self.sequence_length
        # Around the first part stand two special tokens, as around each
        # further one.
        room = size - 2 * len(columns)
        if room < len(columns):
            raise ValueError(
                "`sequence_length` must be at least 6 for pairs of texts. "
                f"Received: sequence_length={size}"
            )
        ids = np.full((len(texts), size), self.pad_token_id, "int32")
        longest = too_long = 0
        for row, pieces in zip(ids, zip(*columns, strict=True), strict=True):
            lengths = [len(piece) for piece in pieces]
            kept = kept_lengths(lengths, room)
            packed = []
            for piece, count in zip(pieces, kept, strict=True):
                opening = self.end_token_id if packed else self.start_token_id
                packed += [opening, *piece[:count], self.end_token_id]
            row[: len(packed)] = packed
            too_long += sum(lengths) > room
            longest = max(longest, sum(lengths) + size - room)
        if too_long:
            warnings.warn(
                f"{too_long} of {len(texts)} texts cut: the longest has "
                f"{longest} tokens with `<s>` and `</s>`, but "
                f"sequence_length={size}.",
                stacklevel=2,
            )
        ids = ids[0] if single else ids
        return ids, (ids != self.pad_token_id).astype("int32")

    def _ids_of(self, texts):
        """Lists of ids, without special tokens."""
        encodings = self._engine.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _ids_around_masks(self, texts):
        parts = [split_at_masks(text) for text in texts]
        encoded = iter(self._ids_of([p for row in parts for p in row]))
        rows = []
        for row in parts:
            ids = next(encoded)
            for _ in row[1:]:
                ids = [*ids, self.mask_token_id, *next(encoded)]
            rows.append(ids)
        return rows

    def detokenize(self, ids):
        """A string for ids `(T,)`, a list of strings for `(B, T)`."""
        ids = keras.ops.convert_to_numpy(ids)
        if ids.ndim == 2:
            return [self.detokenize(row) for row in ids]
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(
                "`ids` must be integers of shape (T,) or (B, T). Received: "
                f"ids of shape {ids.shape} and dtype {ids.dtype}"
            )
        for i in (ids.min(), ids.max()) if ids.size else ():
            self.id_to_token(i)
        special = self.special_token_ids
        pieces = [i for i in ids.tolist() if i not in special]
        return self._engine.decode(pieces, skip_special_tokens=False)

    def get_vocabulary(self):
        vocabulary = self._engine.get_vocab()
        return sorted(vocabulary, key=vocabulary.get)

    def vocabulary_size(self):
        return self._engine.get_vocab_size()

    def id_to_token(self, id):
        size = self.vocabulary_size()
        if not 0 <= id < size:
            rule = f"`id` must be from 0 to {size - 1}"
            raise ValueError(f"{rule}. Received: id={id}")
        return self._engine.id_to_token(int(id))

    def token_to_id(self, token):
        id = self._engine.token_to_id(token)
        if id is None:
            raise ValueError(
                f"`token` must be in the vocabulary. Received: token={token!r}"
            )
        return id

    @property
    def special_token_ids(self):
        return [self.token_to_id(token) for token in SPECIAL_TOKENS]

    def save_assets(self, dir_path):
        # The engine writes `vocab.json` and `merges.txt`.
        vocabulary, _ = self._engine.model.save(str(dir_path))
        os.replace(vocabulary, os.path.join(dir_path, VOCABULARY_FILE))

    def load_assets(self, dir_path):
        paths = (os.path.join(dir_path, name) for name in self.file_assets)
        self._set_vocabulary(*paths)

    def get_config(self):
        config = super().get_config()
        return {**config, "sequence_length": self.sequence_length}
