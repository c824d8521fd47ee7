"""BridgeTowerTokenizer with a small vocabulary, by hand."""

import json
import os
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_hub.src.utils.preset_utils import get_preset_loader

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


@pytest.mark.parametrize(
    "texts",
    [
        ["hi", "cat"],
        ("hi", "cat"),
        [b"hi", "cat"],
        np.array(["hi", "cat"]),
        np.array([b"hi", b"cat"]),
        np.array(["hi", "cat"], object),
        tf.constant(["hi", "cat"]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_kind_of_batch(texts):
    tokenizer = make()
    expected = np.stack([tokenizer("hi"), tokenizer("cat")])
    outputs = tokenizer(texts)
    assert isinstance(outputs, np.ndarray)
    np.testing.assert_array_equal(outputs, expected)
    assert tokenizer(texts[0]).shape == (8,)


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


def test_special_tokens_typed_by_a_user_are_text():
    tokenizer = make(sequence_length=20)
    for token in SPECIALS:
        ids = tokenizer(f"hi {token}cat")
        inner = ids[(ids != 1) & (ids != 0) & (ids != 2)]
        assert not set(inner.tolist()) & set(range(5))
        assert (ids == 0).sum() == 1 and (ids == 2).sum() == 1
        assert tokenizer.detokenize(ids) == f"hi {token}cat"


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


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("", r"`text` must not be empty. Received: text=''"),
        (["a", "b", "c", " \n"], r"not be empty. Received: text\[3\]=' \\n'"),
        (["a", 5], r"one string, or a flat list.* Received: text\[1\]=5"),
        (None, r"one string.* Received: text=None"),
        ([["a"]], r"flat list.* Received: text\[0\]=\['a'\]"),
        (np.array([["a"]]), r"flat list.* Received: text\[0\]=\['a'\]"),
        ("a\0b", r"NUL characters. Received: text='a\\x00b'"),
        ([b"\xff"], r"be UTF-8 bytes.* Received: text\[0\]=b'\\xff'"),
        ("\ud800", r"lone surrogates. Received: text='\\ud800'"),
    ],
)
def test_refused_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        make()(texts)


def test_refused_texts_in_a_graph():
    dataset = tf.data.Dataset.from_tensors(["hi", ""]).map(make())
    message = r"`text` must not be empty. Received: text\[1\]=b?\\'\\'"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as raised:
        next(iter(dataset))
    # TensorFlow logs this text.
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize("text", ["a\0b", "\"\0'\n", "\0\\", ""])
def test_errors_in_a_graph_are_raised_as_they_were(text):
    with pytest.raises(ValueError) as expected:
        make()(["a", text])
    dataset = tf.data.Dataset.from_tensors(["a", text]).map(make())
    with pytest.raises(ValueError) as raised, typed_errors():
        next(iter(dataset))
    assert str(raised.value).replace("=b", "=") == str(expected.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"vocabulary": {"<s>": 0, "</s>": 1, "<unk>": 2}},
            "without .*<pad>",
        ),
        (
            {"vocabulary": {**VOCABULARY, "more": 900}},
            "each id from 0 to .* once",
        ),
        ({"vocabulary": [1.5]}, r"dict from token to id.*=\[1.5\]"),
        ({"vocabulary": __file__}, "in JSON.*test_tokenizer.py"),
        ({"merges": ["h i", "q u"]}, "only use tokens of `vocabulary`.*qu"),
        ({"merges": ["h i x"]}, r"Received: merges\[0\]='h i x'"),
        ({"merges": ["<mask >"]}, "none a special token"),
        ({"sequence_length": 2}, "at least 3.*sequence_length=2"),
        ({"sequence_length": 8.0}, "sequence_length=8.0"),
    ],
)
def test_refused_arguments(arguments, message):
    values = {"vocabulary": VOCABULARY, "merges": MERGES, **arguments}
    with pytest.raises(ValueError, match=message):
        BridgeTowerTokenizer(**values)


def test_vocabulary_methods():
    tokenizer = make()
    assert tokenizer.get_vocabulary() == TOKENS
    assert tokenizer.vocabulary_size() == len(TOKENS)
    assert tokenizer.id_to_token(4) == "<mask>"
    assert tokenizer.token_to_id("hi") == VOCABULARY["hi"]
    assert tokenizer.special_tokens == SPECIALS
    with pytest.raises(ValueError, match="Received: token='nope'"):
        tokenizer.token_to_id("nope")
    for call in (
        tokenizer.id_to_token,
        lambda id: tokenizer.detokenize([5, id]),
    ):
        for id in (-1, len(TOKENS)):
            with pytest.raises(ValueError, match=f"Received: id={id}"):
                call(id)
    ids = keras.ops.convert_to_tensor(tokenizer(["hi a", "cat"]))
    assert tokenizer.detokenize(ids) == ["hi a", "cat"]
    assert BridgeTowerTokenizer().mask_token_id is None


def test_config_and_assets(tmp_path):
    tokenizer = make(name="words")
    config = tokenizer.get_config()
    assert not {"vocabulary", "merges"} & set(config)
    json.dumps(config)
    again = BridgeTowerTokenizer.from_config(config)
    assert (again.name, again.sequence_length) == ("words", 8)
    tokenizer.save_assets(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(tokenizer.file_assets)
    again.load_assets(str(tmp_path))
    np.testing.assert_array_equal(again("hi a cat"), tokenizer("hi a cat"))
    assert again.mask_token_id == tokenizer.mask_token_id == 4
    again = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(again("hi a cat"), tokenizer("hi a cat"))


def test_keras_hub_preset(tmp_path):
    tokenizer = make()
    tokenizer.save_to_preset(str(tmp_path))
    assert (tmp_path / "assets" / "tokenizer" / "merges.txt").is_file()
    # Of the backbone, the loader only asks for a name here.
    (tmp_path / "config.json").write_text('{"registered_name": "Any"}')
    loader = get_preset_loader(str(tmp_path))
    again = loader.load_tokenizer(BridgeTowerTokenizer, sequence_length=9)
    assert again("hi a cat").tolist() == [*tokenizer("hi a cat"), 1]
