"""BridgeTowerTokenizer with a small vocabulary, by hand."""

import pickle
import traceback
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import ONE_BACKEND

from keras_bridgetower.preprocessing.tf_graph import typed_errors
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerTokenizer

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
MERGES = ["h i", "Ġ a", "c a", "ca t"]
TOKENS = [
    *SPECIALS,
    *(chr(i) for i in range(33, 127)),
    "Ġ",
    *("".join(merge.split()) for merge in MERGES),
]
VOCABULARY = {token: i for i, token in enumerate(TOKENS)}


def make(sequence_length=8, **kwargs):
    return BridgeTowerTokenizer(
        VOCABULARY, MERGES, sequence_length=sequence_length, **kwargs
    )


@ONE_BACKEND
def test_packing_by_hand():
    tokenizer = make()
    hi, cat, space_a, y, space = (
        VOCABULARY[x] for x in ("hi", "cat", "Ġa", "y", "Ġ")
    )
    ids = tokenizer("hi a cat")
    assert isinstance(ids, np.ndarray) and ids.dtype == np.int32
    assert ids.tolist() == [0, hi, space_a, space, cat, 2, 1, 1]
    encoded = tokenizer.encode(["y", "hi"])
    assert encoded["token_ids"].tolist() == [
        [0, y, 2, 1, 1, 1, 1, 1],
        [0, hi, 2, 1, 1, 1, 1, 1],
    ]
    assert encoded["padding_mask"].tolist() == [[1] * 3 + [0] * 5] * 2
    assert encoded["padding_mask"].dtype == np.int32
    # A character that the vocabulary misses is not dropped without a trace.
    assert tokenizer("é")[1:3].tolist() == [3, 3]
    for change, message in (
        ({"vocabulary": {"<s>": 0, "</s>": 1, "<unk>": 2}}, "without .*<pad>"),
        ({"vocabulary": {**VOCABULARY, "more": 900}}, "each id from 0 once"),
        ({"merges": ["h i x"]}, r"merges\[0\]"),
        ({"merges": ["<mask >"]}, "none a special token"),
    ):
        values = {"vocabulary": VOCABULARY, "merges": MERGES, **change}
        with pytest.raises(ValueError, match=message):
            BridgeTowerTokenizer(**values)


@ONE_BACKEND
def test_static_shapes_in_graphs():
    tokenizer = make()
    texts = ["hi", "a cat", "<mask>"]
    dataset = tf.data.Dataset.from_tensor_slices(texts)
    assert dataset.map(tokenizer).element_spec.shape == (8,)
    batches = dataset.batch(3, drop_remainder=True).map(tokenizer.encode)
    assert batches.element_spec["padding_mask"].shape == (3, 8)
    np.testing.assert_array_equal(
        next(iter(batches))["token_ids"], tokenizer(texts)
    )
    # A list of Python strings in a graph, too.
    traced = tf.function(lambda: tokenizer(texts))()
    np.testing.assert_array_equal(traced, tokenizer(texts))


@ONE_BACKEND
def test_cut_texts_keep_the_end_token_and_warn_once():
    tokenizer = make(sequence_length=6)
    texts = ["y" * 71, "y", "y" * 10]
    with pytest.warns(
        UserWarning, match=r"2 of 3 texts.* has 73 tokens.*sequence_length=6"
    ) as caught:
        ids = tokenizer(texts)
    assert len(caught) == 1
    assert ids[0].tolist() == [0, *[VOCABULARY["y"]] * 4, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer("yyyy")


@ONE_BACKEND
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", " \n"], r"not be empty.*text\[1\]"),
        (None, "one string"),
        ([["a"]], r"flat list.*text\[0\]"),
        ("a\0b", "NUL"),
        ([b"\xff"], r"UTF-8.*text\[0\]"),
        ("\ud800", "surrogates"),
    ],
)
def test_refused_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        make()(texts)


@ONE_BACKEND
@pytest.mark.parametrize("text", ["\"\0'\n", "\0\\", ""])
def test_errors_in_a_graph_are_raised_as_they_were(text):
    with pytest.raises(ValueError) as expected:
        make()(["a", text])
    dataset = tf.data.Dataset.from_tensors(["a", text]).map(make())
    with pytest.raises(ValueError) as raised, typed_errors():
        next(iter(dataset))
    assert str(raised.value).replace("=b", "=") == str(expected.value)
    # Nor is TensorFlow's own text, with its nodes, printed above it.
    printed = "".join(traceback.format_exception(raised.value))
    assert "node" not in printed


def test_vocabulary_methods():
    tokenizer = make()
    assert tokenizer.get_vocabulary() == TOKENS
    assert tokenizer.vocabulary_size() == len(TOKENS)
    assert tokenizer.id_to_token(4) == "<mask>"
    assert tokenizer.token_to_id("hi") == VOCABULARY["hi"]
    assert tokenizer.special_tokens == SPECIALS
    with pytest.raises(ValueError, match="Received: token='nope'"):
        tokenizer.token_to_id("nope")
    ids = keras.ops.convert_to_tensor(tokenizer(["hi a", "cat"]))
    assert tokenizer.detokenize(ids) == ["hi a", "cat"]
    copy = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(copy("hi a cat"), tokenizer("hi a cat"))
    empty = BridgeTowerTokenizer()
    assert empty.mask_token_id is None
    for call in (lambda: empty("hi"), empty.masking, empty.get_vocabulary):
        with pytest.raises(ValueError, match="`vocabulary` must be passed"):
            call()
