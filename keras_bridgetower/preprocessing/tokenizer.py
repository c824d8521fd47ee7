"""RoBERTa's tokenizer: byte-level BPE."""

import os

import keras
import tokenizers

from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.packed_tokenizer import PackedTokenizer
from keras_bridgetower.preprocessing.tokenizer_files import SPECIAL_TOKENS
from keras_bridgetower.preprocessing.tokenizer_files import read_merges
from keras_bridgetower.preprocessing.tokenizer_files import read_vocabulary

VOCABULARY_FILE = "vocabulary.json"
MERGES_FILE = "merges.txt"


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTokenizer(PackedTokenizer):
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
        ValueError: A text is empty, is not text, holds a NUL character or has
            more than 100,000 characters; or the vocabulary misses special
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
        if (vocabulary is None) != (merges is None):
            raise ValueError(
                "`vocabulary` and `merges` must be given together. Received: "
                f"vocabulary={vocabulary!r:.200}, merges={merges!r:.200}"
            )
        self.file_assets = [VOCABULARY_FILE, MERGES_FILE]
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
        engine = tokenizers.Tokenizer(model)
        engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
            add_prefix_space=False
        )
        engine.decoder = tokenizers.decoders.ByteLevel()
        self._set_engine(engine)

    def masking(self, **values):
        """RoBERTa's rule, `TokenMasking`, for this vocabulary."""
        return TokenMasking(**self.masking_values(), **values)

    def save_assets(self, dir_path):
        """Write the vocabulary's files into a folder."""
        # The engine writes `vocab.json` and `merges.txt`.
        vocabulary, _ = self._engine.model.save(str(dir_path))
        os.replace(vocabulary, os.path.join(dir_path, VOCABULARY_FILE))

    def load_assets(self, dir_path):
        """Take the vocabulary from the files that `save_assets` wrote."""
        paths = (os.path.join(dir_path, name) for name in self.file_assets)
        self._set_vocabulary(*paths)
