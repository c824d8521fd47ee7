"""Texts that are longer than what is read: refused, or cut as asked."""

import numpy as np
import pytest
from builders import FASTEST
from builders import contrastive
from builders import fast
from builders import randomise
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.texts import LongTexts

pytestmark = FASTEST
SHORT, LONG = "red", "0123456789 and more"


def ids(text):
    made = tokenizer(60).encode(text)
    return made["token_ids"][made["padding_mask"] == 1].tolist()


@pytest.mark.parametrize("rule", ["cut_end", "cut_start"])
def test_texts_are_cut_where_it_was_asked(rule):
    first, second = (ids(text) for text in (SHORT, LONG))
    found = LongTexts(8, rule).encode(tokenizer(60), [SHORT, LONG])
    inner = second[1:-1]
    kept = inner[:6] if rule == "cut_end" else inner[-6:]
    wanted = [first + [1] * (8 - len(first)), [second[0], *kept, second[-1]]]
    assert found["token_ids"].tolist() == wanted
    assert found["padding_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    single = LongTexts(8, rule).encode(tokenizer(60), LONG)
    assert single["token_ids"].tolist() == wanted[1]


def test_a_text_that_just_fits_is_as_the_tokenizer_makes_it():
    wanted = tokenizer(len(ids(LONG))).encode([LONG, SHORT])
    for rule in ("refuse", "warn", "cut_end", "cut_start"):
        limits = LongTexts(len(ids(LONG)), rule)
        found = limits.encode(tokenizer(8), [LONG, SHORT])
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


def test_what_is_too_long_is_said_each_time():
    told = r"texts\[1\] has 21 tokens .*, but sequence_length=20"
    with pytest.raises(ValueError, match=told):
        LongTexts(20).encode(tokenizer(), [SHORT, LONG])
    same = tokenizer()
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"1 of 2 texts cut.*{told}"):
            LongTexts(20, "warn").encode(same, [SHORT, LONG])


@pytest.fixture(scope="module")
def task():
    return randomise(fast(contrastive("three_way")))


def test_a_task_reads_more_tokens_than_its_preprocessor(task):
    text = "ten letters " * 4
    count = len(ids(text))
    assert task.preprocessor.tokenizer.sequence_length < count
    found = task.embed(texts=text, sequence_length=60, long_texts="refuse")
    features = tokenizer(60).encode([text])
    wanted = task.embed(texts=[text], sequence_length=count)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    tower = task.backbone.text_tower(features)
    assert tower[-1].shape[1] == 60
    # What stands behind the usual length does count.
    cut = task.embed(texts=text, long_texts="cut_end")
    assert np.abs(found - cut).max() > 1e-4


def test_beyond_the_positions_of_the_encoder_is_refused(task):
    most = task.backbone.text_encoder.max_sequence_length
    with pytest.raises(ValueError, match=f"must be at most {most}, the pos"):
        task.embed(texts=SHORT, sequence_length=most + 1)
    task.embed(texts=SHORT, sequence_length=most)
    embedder = kbt.BridgeTowerEmbedder(task, sequence_length=most)
    with pytest.raises(ValueError, match="must not be longer than what is"):
        embedder.embed_documents([SHORT, "word " * most])
    for wrong in (0, 2.5, "many"):
        with pytest.raises(ValueError, match="`sequence_length` must be"):
            task.embed(texts=SHORT, sequence_length=wrong, long_texts="warn")
    with pytest.raises(ValueError, match="`long_texts` must be one of"):
        task.embed(texts=SHORT, long_texts="cut")
