"""Tokenizers by hand, against transformers, and of long texts."""

import pickle
import random
import time
import traceback
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import FASTEST
from builders import ONE_BACKEND
from builders import contrastive
from builders import fast
from builders import randomise
from builders import raw
from builders import tokenizer as of_length
from roberta_peer import packed
from roberta_peer import published_peer
from roberta_peer import random_strings
from roberta_peer import shared_data

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.preprocessing.masking import WholeWordMasking
from keras_bridgetower.preprocessing.texts import MOST_CHARACTERS
from keras_bridgetower.preprocessing.texts import encode_long
from keras_bridgetower.preprocessing.tf_graph import typed_errors
from keras_bridgetower.preprocessing.tokenizer import BridgeTowerBertTokenizer
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
    assert ids.tolist() == [0, hi, space_a, space, cat, 2, 1, 1]
    encoded = tokenizer.encode(["y", "hi"])
    assert encoded["token_ids"].tolist() == [
        [0, y, 2, 1, 1, 1, 1, 1],
        [0, hi, 2, 1, 1, 1, 1, 1],
    ]
    assert encoded["padding_mask"].tolist() == [[1] * 3 + [0] * 5] * 2
    assert encoded["padding_mask"].dtype == ids.dtype == np.int32
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


@pytest.fixture(scope="module")
def roberta():
    folder = shared_data()
    if folder is None:
        pytest.skip("needs shared/data/roberta, which is not in the project")
    return BridgeTowerTokenizer(
        folder / "roberta" / "vocab.json",
        str(folder / "roberta" / "merges.txt"),
    )


def check_equal(found, expected):
    for name, of_peer in (
        ("token_ids", "input_ids"),
        ("padding_mask", "attention_mask"),
    ):
        np.testing.assert_array_equal(found[name], expected[of_peer])


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_equals_transformers_eagerly_and_in_tf_data(roberta):
    texts = random_strings(1500)
    assert len(texts) > 1300
    expected = published_peer()(texts, **packed())
    eager = roberta.encode(texts)
    check_equal(eager, expected)
    # Some texts must really be cut for this to say anything about cutting.
    assert (eager["padding_mask"].sum(-1) == 50).sum() > 25

    dataset = tf.data.Dataset.from_tensor_slices(texts)
    one_by_one = dataset.take(300).map(roberta, num_parallel_calls=2)
    np.testing.assert_array_equal(
        list(one_by_one.as_numpy_iterator()), expected["input_ids"][:300]
    )
    batch = next(iter(dataset.batch(len(texts)).map(roberta.encode)))
    check_equal(batch, expected)


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_masks_in_a_text_equal_transformers(roberta):
    rng = random.Random(3)
    spaces = ("", " ", "  ", "\t", "\u00a0", "\u3000 ", "\x1c", "\u200b", "\n")
    texts = ["<mask>", " <mask> ", "<mask><mask> <mask>", "a small <mask> dog."]
    for text in random_strings(1000):
        parts = [text]
        for _ in range(rng.randint(1, 3)):
            around = (rng.choice(spaces), "<mask>", rng.choice(spaces))
            parts += ["".join(around), rng.choice(["a", "Dog,", "", "é"])]
        texts.append("".join(parts))
    expected = published_peer()(texts, **packed())
    check_equal(roberta.encode_with_masks(texts), expected)
    # Elsewhere the same characters are text.
    assert not (roberta(texts) == roberta.mask_token_id).any()


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_pairs_equal_transformers(roberta):
    length, texts = 21, random_strings(1000)
    found = roberta.with_length(length).encode_pairs(texts, texts[::-1])
    check_equal(found, published_peer()(texts, texts[::-1], **packed(length)))
    full = found["padding_mask"].sum(-1) == length
    assert 50 < full.sum() < 950


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "it", "red"]
WORDS += ["blue", "or", "what", "play", "##ing", "##s", "col", "##our", "?"]
WORDS += ["!", "[", "]", "<", ">", "mask", "sep", "a", "##b", "cafe", "中"]
STRINGS = (
    "Is it red?",
    "playing plays PLAY a ab abb",
    "what colour\tis  it?!  ",
    "café CAFÉ cafe\u0301",
    "中a中",
    "\u200bred\u00a0blue\ufffd unknownword",
    "x" * 200,
)


def bert(sequence_length=16, **kwargs):
    return BridgeTowerBertTokenizer(
        WORDS, sequence_length=sequence_length, **kwargs
    )


@FASTEST
def test_ids_are_those_of_transformers(tmp_path):
    """Cased; tests/convert compares others, which are lowercase."""
    import transformers

    ours = bert(300, lowercase=False)
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(WORDS) + "\n")
    theirs = transformers.BertTokenizerFast(str(file), do_lower_case=False)
    for text in STRINGS:
        made = ours.encode(text)
        found = made["token_ids"][made["padding_mask"] == 1].tolist()
        assert found == theirs(text)["input_ids"], text
    assert (ours.pad_token_id, ours.mask_token_id) == (0, 4)


@FASTEST
def test_attributes_are_those_before_a_vocabulary(tmp_path):
    loaded = bert()
    empty = BridgeTowerBertTokenizer(sequence_length=16)
    assert {*dir(loaded)} == {*dir(empty)}
    loaded.save_assets(tmp_path)
    empty.load_assets(tmp_path)
    assert empty.masking() == loaded.masking()
    assert empty.masking().continuation_ids == (12, 13, 15, 25)


@FASTEST
def test_whole_words_are_hidden():
    converter = kbt.BridgeTowerImageConverter(32)
    preprocessor = kbt.BridgeTowerMaskedLMPreprocessor(
        bert(), converter, rate=0.4
    )
    assert isinstance(preprocessor.tokenizer.masking(), WholeWordMasking)
    x = raw(1)[0] | {"text": ["playing plays colour abb red"]}
    hidden = set()
    for step in range(30):
        made, labels = preprocessor({**x, "step": step})
        places = made["mask_positions"][0][labels[0] >= 0].tolist()
        hidden.update(places)
        # play ##ing | play ##s | col ##our | a ##b ##b | red, after [CLS].
        for word in ((1, 2), (3, 4), (5, 6), (7, 8, 9), (10,)):
            assert len(set(word) & set(places)) in (0, len(word))
    assert hidden == set(range(1, 11))


@FASTEST
@pytest.mark.parametrize("entry", ['"w":0,', '["w",-1.5],'])
def test_a_file_of_two_million_words_is_refused_at_once(entry, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text('{"model":{"vocab":' + entry * 2_000_000)
    start = time.process_time()
    with pytest.raises(ValueError, match="at most 1,500,000 values"):
        kbt.BridgeTowerJsonTokenizer(file)
    assert time.process_time() - start < 1


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_a_text_has_a_longest_length():
    for tokenizer in (of_length(16), bert()):
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


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_little_is_tokenised_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    texts = ["ab" * n for n in rng.integers(1, 40, 50)]
    for tokenizer in (of_length(16), bert()):
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


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
@pytest.mark.parametrize("rule", ["cut_end", "cut_start"])
def test_texts_are_cut_where_it_was_asked(rule):
    found = encode_long(of_length(60), [SHORT, LONG], 8, rule)
    first, second = (of_length(len(t) + 2)(t).tolist() for t in (SHORT, LONG))
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


@FASTEST
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_a_task_reads_more_tokens_than_its_preprocessor():
    task = randomise(fast(contrastive("three_way")))
    text = "ten letters " * 4
    count = len(text) + 2
    assert task.preprocessor.tokenizer.sequence_length < count < 60
    found = task.embed(texts=text, sequence_length=60, long_texts="refuse")
    wanted = task.embed(texts=[text], sequence_length=count)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
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
