"""Base class of the tokenizers: texts to token ids of one length."""

import contextlib
import functools
import os
import warnings

import keras
import keras_hub
import numpy as np
import tokenizers

from keras_bridgetower import checks
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.preprocessing import tf_graph
from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.masking import WholeWordMasking
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.preprocessing.texts import kept_lengths
from keras_bridgetower.preprocessing.texts import split_at_masks
from keras_bridgetower.presets import registry

# KerasHub's names of a tokenizer's files in a preset.
CONFIG = "tokenizer.json"
ASSETS = "assets/tokenizer"
# The engine, as the library `tokenizers` saves it.
ENGINE_FILE = "engine.json"
# Constructor values that are in assets.
FROM_FILES = ("vocabulary", "merges")

# Characters that are tokenized at once. A token takes about 200 bytes until it
# is packed, so these take at most 50 MB.
AT_ONCE = 250_000
# The largest published vocabulary, of XLM-V, has 901,629.
MOST_TOKENS = 1_000_000


class PackedTokenizer(keras_hub.tokenizers.Tokenizer, tf_graph.DirectLayer):
    """Abstract: texts to packed ids, by an engine of `tokenizers`.

    A subclass defines `special_tokens`, in the order start, padding, end,
    unknown and, if there is one, mask; the tokens `between` two texts; the
    engine; and `masking`, the rule that hides its tokens. The engine does not
    know the special tokens, so it never finds one in a text; they are added by
    id. The same code runs eagerly and, through `tf.numpy_function`, in a
    TensorFlow graph.

    Args:
        sequence_length: int, tokens in each packed text, including those at
            its start and end. Longer texts are cut, with a warning the first
            time.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`.
    """

    backbone_cls = BridgeTowerBackbone
    special_tokens = ()
    start_token_id = pad_token_id = end_token_id = None
    unk_token_id = mask_token_id = None
    between = ()
    # True if encoders of this tokenizer read `segment_ids` too.
    has_segments = False
    # True if the encoder was trained without a start token: the packed text
    # has one, which only the layers above the encoder see.
    adds_start = False

    def __init__(self, sequence_length, **kwargs):
        super().__init__(**kwargs)
        checks.check_count("sequence_length", sequence_length)
        self.sequence_length = int(sequence_length)
        self._loaded = None
        self._said_cut = False
        # Of WordPiece: pieces that continue a word.
        self._continuing = ()

    @classmethod
    def from_preset(cls, preset, revision=None, **kwargs):
        """Open the tokenizer of a preset.

        Args:
            preset, revision: as `BridgeTowerVQA.from_preset`.
            **kwargs: constructor values that replace the saved ones, such as
                `sequence_length`.
        """
        checks.check_keywords(cls, kwargs, checks.OF_PRESETS, FROM_FILES)
        folder = registry.open_preset(preset, revision)
        return cls.from_folder(folder, **kwargs)

    @classmethod
    def from_folder(cls, folder, spec=None, **values):
        """Load the tokenizer of an opened preset.

        Args:
            folder: `PresetFolder`.
            spec: dict, the tokenizer in the preset's preprocessor, or None.
            **values: constructor values that replace the saved ones.
        """
        made = folder.build(CONFIG, cls, spec, FROM_FILES, **values)
        files = [folder.path(f"{ASSETS}/{name}") for name in made.file_assets]
        with folder.reading(ASSETS):
            made.load_assets(files[0].parent)
        return made

    def masking(self, **values):
        """Return the rule that hides this tokenizer's tokens.

        Args:
            **values: `rate`, `max_masks` and others of `Masking`.

        Returns:
            A `Masking`: `WholeWordMasking` for WordPiece, as for BERT, and
            `TokenMasking` for others.
        """
        values |= self.masking_values()
        if not isinstance(self._engine.model, tokenizers.models.WordPiece):
            return TokenMasking(**values)
        return WholeWordMasking(
            continuation_ids=self._continuing,
            break_ids=(self.start_token_id, self.end_token_id),
            **values,
        )

    def reading(self):
        """Return a plain value on which ids depend, besides the vocabulary."""
        return None

    def _check_mask_token(self):
        """Raise a ValueError if this tokenizer has no mask token."""
        if len(self.special_token_ids) < 5:
            raise ValueError(
                "`tokenizer` must have a mask token to hide tokens. Those of "
                "RoBERTa, XLM-R, MetaCLIP 2, BERT, DistilBERT, ELECTRA, ALBERT "
                "and DeBERTa have one; those of CLIP, SigLIP and SigLIP 2 have "
                f"none. Received: {type(self).__name__} with the special "
                f"tokens {self.special_tokens}"
            )

    def masking_values(self):
        """Return the arguments that every masking rule needs."""
        self._check_mask_token()
        return {
            "mask_token_id": self.mask_token_id,
            "special_token_ids": self.special_token_ids,
            "vocabulary_size": self.vocabulary_size(),
            "sequence_length": self.sequence_length,
        }

    @property
    def _engine(self):
        if self._loaded is None:
            raise ValueError(
                "`vocabulary` must be passed, or be loaded by `load_assets`. "
                "Received: vocabulary=None"
            )
        return self._loaded

    def _set_engine(self, engine):
        self._loaded = engine
        ids = self.special_token_ids
        self.start_token_id, self.pad_token_id, self.end_token_id = ids[:3]
        self.unk_token_id, self.mask_token_id = [*ids[3:], None][:2]
        prefix = getattr(engine.model, "continuing_subword_prefix", None)
        names = self.get_vocabulary() if prefix else ()
        self._continuing = tuple(
            i for i, name in enumerate(names) if name.startswith(prefix)
        )

    def save_engine(self, dir_path):
        """Write the engine's file into a folder."""
        self._engine.save(os.path.join(dir_path, ENGINE_FILE), pretty=False)

    def with_length(self, sequence_length):
        """Return a tokenizer of the same vocabulary with another length."""
        checks.check_count("sequence_length", sequence_length)
        config = {**self.get_config(), "sequence_length": sequence_length}
        made = type(self).from_config(config)
        if self._loaded is not None:
            made._set_engine(self._loaded)
        return made

    def tokenize(self, texts):
        return self.encode(texts)["token_ids"]

    def call(self, texts):
        # The base class would turn every text into a TensorFlow tensor.
        return self.tokenize(texts)

    def encode(self, texts):
        """Return token ids and padding mask, as described in the class."""
        return self._encode(self._to_ids, texts)

    def encode_with_masks(self, texts):
        """Encode texts in which `<mask>` is the mask token.

        White space before it is dropped, as in RoBERTa's published files: the
        token that fills the place has its own.
        """
        self._check_mask_token()
        return self._encode(self._ids_around_masks, texts)

    def encode_pairs(self, texts, second_texts):
        """Encode pairs of texts: `<s> a </s></s> b </s>`.

        BERT's are `[CLS] a [SEP] b [SEP]`. If a pair is too long, its longer
        text is cut first.
        """
        return self._encode(self._to_ids, texts, second_texts)

    def _encode(self, encode, *parts):
        # A graph keeps the length with which it was traced.
        size = self.sequence_length
        spec = ("int32", (*tf_graph.static_shape(parts[0]), size))
        pack = functools.partial(self._pack, encode, size)
        ids, mask = tf_graph.apply_numpy(pack, list(parts), spec, spec)
        return {"token_ids": ids, "padding_mask": mask}

    def _pack(self, encode, size, *parts):
        """Join the parts of each row between special tokens, and pad.

        Args:
            encode: callable from a list of texts to a list of lists of ids.
            size: int, tokens of each row. Longer ones are cut.
            *parts: one or two strings, lists or arrays of strings.

        Returns:
            `(ids, mask)`: int32 arrays `(texts, size)`, without the first
            axis for single texts.
        """
        names = ("text", "second_text")
        checked = [checked_texts(*p) for p in zip(parts, names, strict=False)]
        texts, single = checked[0]
        if any((len(t), s) != (len(texts), single) for t, s in checked):
            raise ValueError(
                "`text` and `second_text` must have the same number of texts."
            )
        between = [self.token_to_id(token) for token in self.between]
        added = 2 + (len(checked) - 1) * (1 + len(between))
        room = size - added
        if room < len(checked):
            raise ValueError(
                f"`sequence_length` must be at least {added + len(checked)}."
            )
        _, pad, *_ = self.special_token_ids
        ids = np.full((len(texts), size), pad, "int32")
        # Not computed from ids: a text may have the padding token.
        mask = np.zeros_like(ids)
        longest = too_long = 0
        encoded = _encode_rows(encode, [texts for texts, _ in checked])
        for row, real, pieces in zip(ids, mask, encoded, strict=True):
            lengths = [len(piece) for piece in pieces]
            kept = kept_lengths(lengths, room)
            packed = []
            for piece, count in zip(pieces, kept, strict=True):
                opening = between if packed else [self.start_token_id]
                packed += [*opening, *piece[:count], self.end_token_id]
            row[: len(packed)] = packed
            real[: len(packed)] = 1
            too_long += sum(lengths) > room
            longest = max(longest, sum(lengths) + size - room)
        if too_long and not self._said_cut:
            self._said_cut = True
            warnings.warn(
                f"{too_long} of {len(texts)} texts cut: the longest has "
                f"{longest} tokens, but sequence_length={size}. Pass another "
                "`sequence_length`. Others are cut without a warning.",
                stacklevel=2,
            )
        return (ids[0], mask[0]) if single else (ids, mask)

    def token_lists(self, texts):
        """Return a list of all ids of each text, without special tokens."""
        return [ids for (ids,) in _encode_rows(self._to_ids, [list(texts)])]

    def _to_ids(self, texts):
        """Return lists of ids, without special tokens."""
        # This does not compute the positions of tokens in the text.
        encode = self._engine.encode_batch_fast
        with without_panics():
            encodings = encode(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _ids_around_masks(self, texts):
        parts = [split_at_masks(text) for text in texts]
        encoded = iter(self._to_ids([p for row in parts for p in row]))
        rows = []
        for row in parts:
            ids = list(next(encoded))
            for _ in row[1:]:
                ids.append(self.mask_token_id)
                ids += next(encoded)
            rows.append(ids)
        return rows

    def detokenize(self, ids):
        """Return a string for ids `(T,)`, a list of strings for `(B, T)`."""
        ids = keras.ops.convert_to_numpy(ids)
        if ids.ndim == 2:
            return [self.detokenize(row) for row in ids]
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
            raise ValueError(
                f"`id` must be from 0 to {size - 1}. Received: id={id}"
            )
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
        return [self.token_to_id(token) for token in self.special_tokens]

    def get_config(self):
        config = super().get_config()
        return {**config, "sequence_length": self.sequence_length}


def check_size(count):
    """Raise a ValueError if a vocabulary has too many tokens."""
    if count > MOST_TOKENS:
        raise ValueError(
            f"A vocabulary must have at most {MOST_TOKENS:,} tokens. "
            f"Received: {count:,} tokens"
        )


@contextlib.contextmanager
def without_panics():
    """Turn a panic of the engine, not an `Exception`, into an error."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"The files of a tokenizer must be intact: {error!s:.200}"
        ) from error


def _encode_rows(encode, columns):
    """Yield the ids of rows of texts, encoding few characters at a time.

    Args:
        encode: function from a list of texts to a list of lists of ids.
        columns: lists of texts, all of the same length.

    Yields:
        tuples of lists of ids, one for each column.
    """
    start = characters = 0
    rows = list(zip(*columns, strict=True))
    for stop, row in enumerate(rows, 1):
        characters += sum(map(len, row))
        if characters > AT_ONCE or stop == len(rows):
            parts = [encode(column[start:stop]) for column in columns]
            yield from zip(*parts, strict=True)
            start, characters = stop, 0
