"""Texts and lists of answers that are longer than what is read."""

import string
import time

import numpy as np
import pytest
from builders import FASTEST
from builders import contrastive
from builders import fast
from builders import randomise
from builders import tokenizer as of_length

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.preprocessing.texts import MOST_CHARACTERS
from keras_bridgetower.preprocessing.texts import encode_long
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


def test_little_is_tokenised_at_once(tokenizers, monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["ab" * n for n in rng.integers(1, 40, 50)]
    for tokenizer in tokenizers:
        once = tokenizer.encode(texts), tokenizer.encode_pairs(texts, texts)
        sizes = []
        real = tokenizer._to_ids

        def counted(part, real=real, sizes=sizes):
            sizes.append(sum(map(len, part)))
            return real(part)

        monkeypatch.setattr(packed_tokenizer, "AT_ONCE", 100)
        monkeypatch.setattr(tokenizer, "_to_ids", counted)
        again = tokenizer.encode(texts), tokenizer.encode_pairs(texts, texts)
        monkeypatch.undo()
        assert len(sizes) > 30 and max(sizes) <= 100 + 80
        for one, other in zip(once, again, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


SHORT, LONG = "red", "0123456789 and more"


def ids(text):
    made = of_length(60).encode(text)
    return made["token_ids"][made["padding_mask"] == 1].tolist()


@pytest.mark.parametrize("rule", ["cut_end", "cut_start"])
def test_texts_are_cut_where_it_was_asked(rule):
    first, second = (ids(text) for text in (SHORT, LONG))
    found = encode_long(of_length(60), [SHORT, LONG], 8, rule)
    inner = second[1:-1]
    kept = inner[:6] if rule == "cut_end" else inner[-6:]
    wanted = [first + [1] * (8 - len(first)), [second[0], *kept, second[-1]]]
    assert found["token_ids"].tolist() == wanted
    assert found["padding_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    single = encode_long(of_length(60), LONG, 8, rule)
    assert single["token_ids"].tolist() == wanted[1]

    told = r"texts\[1\] has 21 tokens, but sequence_length=20"
    with pytest.raises(ValueError, match=told):
        encode_long(of_length(60), [SHORT, LONG], 20)


def test_a_task_reads_more_tokens_than_its_preprocessor():
    task = randomise(fast(contrastive("three_way")))
    text = "ten letters " * 4
    count = len(ids(text))
    assert task.preprocessor.tokenizer.sequence_length < count
    found = task.embed(texts=text, sequence_length=60, long_texts="refuse")
    features = of_length(60).encode([text])
    wanted = task.embed(texts=[text], sequence_length=count)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    tower = task.backbone.text_tower(features)
    assert tower[-1].shape[1] == 60
    # What stands behind the usual length does count.
    cut = task.embed(texts=text, long_texts="cut_end")
    assert np.abs(found - cut).max() > 1e-4
    # Beyond the positions of the encoder is refused.
    most = task.backbone.text_encoder.max_sequence_length
    with pytest.raises(ValueError, match=f"at most {most} tokens"):
        task.embed(texts=SHORT, sequence_length=most + 1)
    task.embed(texts=SHORT, sequence_length=most)
    embedder = kbt.BridgeTowerEmbedder(task, sequence_length=most)
    with pytest.raises(ValueError, match="must not be longer than"):
        embedder.embed_documents([SHORT, "word " * most])
    with pytest.raises(ValueError, match="`sequence_length` must be"):
        task.embed(texts=SHORT, sequence_length=2.5, long_texts="warn")
