"""BERT's tokenizer: WordPiece."""

import os

import keras
import tokenizers

from keras_bridgetower.preprocessing.masking import WholeWordMasking
from keras_bridgetower.preprocessing.packed_tokenizer import PackedTokenizer
from keras_bridgetower.preprocessing.tokenizer_files import BERT_SPECIAL_TOKENS
from keras_bridgetower.preprocessing.tokenizer_files import read_words

VOCABULARY_FILE = "vocabulary.txt"
CONTINUES = "##"


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerBertTokenizer(PackedTokenizer):
    """WordPiece as in BERT, packed as `[CLS] ... [SEP] [PAD] ...`.

    Ids equal those of `transformers.BertTokenizer`, except that a special
    token typed by a user is text like any other (`encode_with_masks` alone
    knows `<mask>`, the same sign for every tokenizer). Eagerly and in
    `tf.data` it is the same code.

    Args:
        vocabulary: path of a text file with one token a line, or list of
            tokens, in the order of their ids; `[CLS]`, `[PAD]`, `[SEP]`,
            `[UNK]` and `[MASK]` are among them. `None`: `load_assets` sets
            it.
        lowercase: bool, whether the vocabulary is uncased: texts are lowered
            and accents removed.
        sequence_length: int. Tokens in each packed text, `[CLS]` and `[SEP]`
            included. Longer texts are cut, with one warning a call.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        texts: string or UTF-8 bytes, or a list, NumPy array or string tensor
            of them with one axis.

    Returns:
        int32 token ids, `(sequence_length,)` or `(B, sequence_length)`, and
        the methods' results, as `BridgeTowerTokenizer`.

    Raises:
        ValueError: A text is empty, is not text, holds a NUL character or has
            more than 100,000 characters; or the vocabulary misses special
            tokens or repeats a token.

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
        self, vocabulary=None, lowercase=True, sequence_length=50, **kwargs
    ):
        super().__init__(sequence_length, **kwargs)
        self.lowercase = lowercase
        self.file_assets = [VOCABULARY_FILE]
        if vocabulary is not None:
            self._set_vocabulary(vocabulary)
        self.built = True

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
        self._continuing = tuple(
            i for i, word in enumerate(words) if word.startswith(CONTINUES)
        )
        self._set_engine(engine)

    def masking(self, **values):
        """BERT's rule, `WholeWordMasking`, for this vocabulary."""
        return WholeWordMasking(
            **self.masking_values(),
            continuation_ids=self._continuing,
            break_ids=(self.start_token_id, self.end_token_id),
            **values,
        )

    def save_assets(self, dir_path):
        """Write the vocabulary's files into a folder."""
        path = os.path.join(dir_path, VOCABULARY_FILE)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{word}\n" for word in self.get_vocabulary())

    def load_assets(self, dir_path):
        """Take the vocabulary from the files that `save_assets` wrote."""
        self._set_vocabulary(os.path.join(dir_path, VOCABULARY_FILE))

    def get_config(self):
        return {**super().get_config(), "lowercase": self.lowercase}
