"""Texts and lists of answers that are far longer than anyone means."""

import string
import time

import numpy as np
import pytest
from builders import FASTEST

from keras_bridgetower.preprocessing import classification
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.preprocessing.classification import checked_answers
from keras_bridgetower.preprocessing.texts import MOST_CHARACTERS
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerBertTokenizer
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer

pytestmark = [FASTEST, pytest.mark.filterwarnings("ignore:.*texts cut")]

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = [*string.ascii_lowercase, "\u0120"]


@pytest.fixture(scope="module")
def tokenizers():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [f"##{letter}" for letter in string.ascii_lowercase]
    return (
        BridgeTowerTokenizer(
            {token: i for i, token in enumerate(SPECIALS + LETTERS)}, [], 16
        ),
        BridgeTowerBertTokenizer(
            [*words, *string.ascii_lowercase, *pieces], sequence_length=16
        ),
    )


def test_a_text_has_a_longest_length(tokenizers):
    for tokenizer in tokenizers:
        ids = tokenizer("ab " * 1000)
        longest = ("ab " * MOST_CHARACTERS)[:MOST_CHARACTERS]
        np.testing.assert_array_equal(tokenizer(longest), ids)
        start = time.process_time()
        for text in (longest + "a", longest.encode() + b"a", "a" * 10**7):
            for encode in (tokenizer, tokenizer.encode_with_masks):
                with pytest.raises(
                    ValueError, match=r"`text` must have at most 100,000 char"
                ) as caught:
                    encode(["a", text])
                assert "text[1]=" in str(caught.value)
                assert len(str(caught.value)) < 500
        assert time.process_time() - start < 1


def test_many_masks_take_linear_time(tokenizers, monkeypatch):
    for tokenizer in tokenizers:
        monkeypatch.setattr(tokenizer, "_ids_of", lambda texts: [[1]] * 80_001)
        start = time.process_time()
        (ids,) = tokenizer._ids_around_masks(["<mask>" * 80_000])
        assert ids == [1, tokenizer.mask_token_id] * 80_000 + [1]
        # It took over 8 s when each mask copied those before it.
        assert time.process_time() - start < 1


def test_little_is_tokenised_at_once(tokenizers, monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["ab" * n for n in rng.integers(1, 40, 50)]
    for tokenizer in tokenizers:
        once = tokenizer.encode(texts), tokenizer.encode_pairs(texts, texts)
        sizes = []
        real = tokenizer._ids_of

        def counted(part, real=real, sizes=sizes):
            sizes.append(sum(map(len, part)))
            return real(part)

        monkeypatch.setattr(packed_tokenizer, "AT_ONCE", 100)
        monkeypatch.setattr(tokenizer, "_ids_of", counted)
        again = tokenizer.encode(texts), tokenizer.encode_pairs(texts, texts)
        monkeypatch.undo()
        assert len(sizes) > 30 and max(sizes) <= 100 + 80
        for one, other in zip(once, again, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_answers_have_a_largest_number(monkeypatch):
    monkeypatch.setattr(classification, "MOST_ANSWERS", 3)
    assert checked_answers(iter("abc")) == ["a", "b", "c"]

    def endless():
        while True:
            yield "a"

    with pytest.raises(ValueError, match="`labels` must be at most 3. Keep"):
        checked_answers(endless(), "labels")
