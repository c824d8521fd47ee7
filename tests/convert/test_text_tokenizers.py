"""Tokenizers of every text encoder against those of transformers."""

import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import tensorflow as tf
import text_folders
import transformers
from builders import FASTEST

from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert import unimodal
from keras_bridgetower.encoders.registry import files_by_type
from keras_bridgetower.preprocessing import packed_tokenizer
from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.masking import WholeWordMasking
from keras_bridgetower.preprocessing.texts import encode_long
from keras_bridgetower.presets.errors import ConversionError

pytestmark = [FASTEST, pytest.mark.filterwarnings("ignore:.*texts cut")]
LENGTH = 40
WITHOUT_MASK = ("clip", "siglip", "siglip2")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A function from a model type to its folder and peer, made once."""
    made = {}

    def found(kind, saved=False):
        if (kind, saved) not in made:
            folder = tmp_path_factory.mktemp("folder")
            made[kind, saved] = text_folders.write(folder, kind, saved)
        return made[kind, saved]

    return found


def packed(peer, ours, *texts):
    """Ids and mask of transformers, at the places of ours."""
    made = peer(
        *texts,
        padding="max_length",
        truncation=True,
        max_length=LENGTH - ours.adds_start,
        return_tensors="np",
        return_attention_mask=True,
    )
    return made["input_ids"], made["attention_mask"]


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("kind", text_folders.FILES)
def test_ids_are_those_of_transformers(kind, saved, folder_of):
    """Of the files of each encoder, and of those that transformers saves."""
    folder, peer = folder_of(kind, saved)
    ours = unimodal.tokenizer(folder, LENGTH)
    texts = text_folders.texts(500, seed=1)
    ids, mask = packed(peer, ours, texts)
    made = ours.encode(texts)
    first = int(ours.adds_start)
    wrong = (made["token_ids"][:, first:] != ids).any(1)
    assert [texts[i][:80] for i in np.flatnonzero(wrong)] == []
    np.testing.assert_array_equal(made["padding_mask"][:, first:], mask)
    assert (made["token_ids"][:, 0] == ours.start_token_id).all()
    assert (made["padding_mask"][:, 0] == 1).all()
    assert ours.vocabulary_size() == len(peer)
    long = encode_long(ours, texts, LENGTH, "cut_end")
    np.testing.assert_array_equal(long["token_ids"], made["token_ids"])
    np.testing.assert_array_equal(long["padding_mask"], made["padding_mask"])

    pairs = texts[:100], texts[100:200]
    made = ours.encode_pairs(*pairs)["token_ids"][:, first:]
    ids, mask = packed(peer, ours, *pairs)
    # The slow tokenizer cuts another one of two texts of the same length.
    whole = mask.sum(1) < LENGTH - 1 if kind == "siglip" else slice(None)
    np.testing.assert_array_equal(made[whole], ids[whole])
    assert len(made[whole]) > 10


@pytest.mark.parametrize("kind", text_folders.FILES)
def test_special_tokens_in_texts_are_text(kind, folder_of):
    ours = unimodal.tokenizer(folder_of(kind)[0], LENGTH)
    known = {*ours.special_token_ids} - {ours.unk_token_id}
    for token in {*ours.special_tokens, "<mask>"}:
        for text in (token, f"a {token} b", f"a{token}", token.upper()):
            ids = ours.token_lists([text])[0]
            assert not known & {*ids}, text
            assert ours.vocabulary_size() > max(ids, default=0)


@pytest.mark.parametrize("kind", text_folders.FILES)
def test_masks(kind, folder_of):
    folder, peer = folder_of(kind)
    ours = unimodal.tokenizer(folder, LENGTH)
    if kind in WITHOUT_MASK:
        for call in (ours.masking, lambda: ours.encode_with_masks("a <mask>")):
            with pytest.raises(ValueError, match="have a mask token.*BERT"):
                call()
        return
    words = kind in ("distilbert", "electra")
    rule = WholeWordMasking if words else TokenMasking
    assert type(ours.masking()) is rule
    texts = ["the <mask> dog", "<mask>", "a <mask> <mask>park", "red<mask>"]
    ids, _ = packed(
        peer, ours, [t.replace("<mask>", peer.mask_token) for t in texts]
    )
    made = ours.encode_with_masks(texts)["token_ids"]
    np.testing.assert_array_equal(made, ids)
    assert (made == peer.mask_token_id).sum() == 5


@pytest.mark.parametrize("kind", text_folders.FILES)
def test_values_files_and_graphs(kind, folder_of, tmp_path):
    ours = unimodal.tokenizer(folder_of(kind)[0])
    lengths = {"siglip": 65, "siglip2": 65}
    assert ours.sequence_length == lengths.get(kind, 50)
    assert ours.has_segments == (kind in ("electra", "albert"))
    assert ours.adds_start == kind.startswith("siglip")
    texts = text_folders.texts(50, seed=3)
    expected = ours.encode(texts)

    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(len(texts))
    (graph,) = dataset.map(ours.encode).as_numpy_iterator()
    for name, values in expected.items():
        np.testing.assert_array_equal(graph[name], values)

    config = json.loads(json.dumps(ours.get_config()))
    copies = [type(ours).from_config(config), pickle.loads(pickle.dumps(ours))]
    ours.save_assets(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(ours.file_assets)
    saved = [(tmp_path / name).read_bytes() for name in ours.file_assets]
    copies[0].load_assets(tmp_path)
    for copy in copies:
        assert copy.get_config() == config
        np.testing.assert_array_equal(copy(texts), expected["token_ids"])
        copy.save_assets(tmp_path)
        assert saved == [(tmp_path / n).read_bytes() for n in ours.file_assets]

    names = ours.get_vocabulary()
    assert [ours.token_to_id(name) for name in names] == [*range(len(names))]
    assert ours.id_to_token(ours.end_token_id) == ours.special_tokens[2]
    plain = "the red dog in park"
    assert ours.detokenize(ours(plain)) == plain


def test_lengths_of_the_files(folder_of, tmp_path):
    vocabulary = folder_of("distilbert")[0] / "vocab.txt"
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    values = {"model_type": "bert", "max_position_embeddings": 48}
    text_folders.dump(tmp_path, "config.json", values)
    assert unimodal.tokenizer(tmp_path).sequence_length == 48
    text_folders.dump(tmp_path, "modules.json", [])
    text_folders.dump(
        tmp_path, "sentence_bert_config.json", {"max_seq_length": 32}
    )
    assert unimodal.tokenizer(tmp_path).sequence_length == 32
    assert unimodal.tokenizer(tmp_path, 40).has_segments
    with pytest.raises(ValueError, match="from 1 to 48"):
        unimodal.tokenizer(tmp_path, 49)
    # RoBERTa's first position is after the row of padding.
    for pad, most in ((1, 46), (7, 40)):
        values |= {"model_type": "roberta", "pad_token_id": pad}
        text_folders.dump(tmp_path, "config.json", values)
        with pytest.raises(ValueError, match=f"to {most}, the"):
            unimodal.tokenizer(tmp_path, 47)


def test_damaged_sentencepiece_files(folder_of, tmp_path):
    """Cut, empty, with other bytes, or of another kind: an error, or ids."""
    folder, _ = folder_of("xlm-roberta")
    (path,) = folder.glob("*.model")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"\n" * 100, content[:100], content[: len(content) // 2]]
    for _ in range(20):
        changed = bytearray(content)
        for place in rng.integers(len(content), size=20):
            changed[place] = rng.integers(256)
        damaged.append(bytes(changed))
    refused = 0
    path = tmp_path / path.name
    for bad in damaged:
        path.write_bytes(bad)
        try:
            found = tokenizers.read(tmp_path, "xlm-roberta", 9)
            found(text_folders.texts(20))
        except ValueError:
            refused += 1
    assert refused > 4
    path.write_bytes((folder_of("deberta-v2")[0] / "spm.model").read_bytes())
    with pytest.raises(ConversionError, match="begin <unk> <s> </s>"):
        tokenizers.read(tmp_path, "xlm-roberta", 9)
    os.truncate(path, 2**36)
    with pytest.raises(ConversionError, match="more than"):
        tokenizers.read(tmp_path, "xlm-roberta", 9)


def test_damaged_engine_files(folder_of, tmp_path):
    """A preset's file of another tokenizer, cut, or with other bytes."""
    ours = unimodal.tokenizer(folder_of("xlm-roberta")[0], 9)
    ours.save_assets(tmp_path)
    path = tmp_path / "engine.json"
    content = path.read_bytes()
    damaged = [b"", b"[" * 10**5, content[:-9], content.replace(b"<s>", b"s")]
    damaged.append(content.replace(b"\\u0000", b""))
    for bad in damaged:
        path.write_bytes(bad)
        # A panic of Rust would be no `Exception`.
        with pytest.raises(Exception, match="."):
            ours.load_assets(tmp_path)


BOX = {"content": "<box>", "lstrip": False, "rstrip": False}
BOX |= {"single_word": False, "normalized": True, "special": False}
EXTRA = {"additional_special_tokens": ["<ent>", "<box>"]}
WORDS = ("bert", "distilbert", "electra")
OTHERS = ("roberta", "xlm-roberta", "clip", "deberta-v2", "albert")
# Other special tokens, some of which the vocabulary lacks.
ENDS = {
    **dict.fromkeys(
        WORDS, {"cls_token": "[MASK]", "sep_token": "<c>", "pad_token": "<d>"}
    ),
    "roberta": {"cls_token": "<c>", "sep_token": "<d>", "pad_token": "<mask>"},
    "clip": {"eos_token": "<c>", "bos_token": "<d>"},
    "deberta-v2": {"cls_token": "<c>", "pad_token": "[MASK]"},
    "albert": {"pad_token": "[MASK]"},
    "siglip": {"pad_token": "<unk>"},
    "siglip2": {"pad_token": "<unk>"},
}
CASED = {"lowercase": False, "strip_accents": True}
CASED = {"normalizer": {**CASED, "handle_chinese_chars": False}}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
STEPS = {
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"add_prefix_space": True, "use_regex": False},
    "model": {"ignore_merges": True},
}
SILENT = dict.fromkeys(("do_lower_case", "strip_accents", "tokenizer_class"))
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"


def with_box(count):
    return {"added_tokens_decoder": {str(count): BOX}}


# Kinds, and other values of files, None to delete one. A function takes the
# number of tokens.
SETTINGS = {
    "decoder": ((*WORDS, "roberta", "albert"), {CONFIG: with_box}),
    "added": ((*WORDS, *OTHERS[:3]), {"added_tokens.json": "<box>"}),
    "extra": ((*WORDS, *OTHERS), {CONFIG: EXTRA}),
    "extra in the map": (("bert", "roberta", "clip"), {MAP: EXTRA}),
    "named": (("bert", "clip"), {CONFIG: {"image_token": "<box>"}}),
    "ends": (ENDS, {CONFIG: ENDS}),
    "cased": (WORDS, {CONFIG: {"do_lower_case": False}}),
    "cased in json": (WORDS, {CONFIG: SILENT, "tokenizer.json": CASED}),
    "accents": (WORDS, {CONFIG: {"strip_accents": False}}),
    "letters": (WORDS, {CONFIG: {"tokenize_chinese_chars": False}}),
    "relative": (
        ("bert",),
        {CONFIG: {"tokenizer_class": "ElectraTokenizerFast"}},
    ),
    "whole": ((*WORDS, *OTHERS), {CONFIG: FAST, "tokenizer.json": {}}),
    "whole and cased": (
        WORDS,
        {CONFIG: {**FAST, "pad_token": "[MASK]"}, "tokenizer.json": CASED},
    ),
    "whole by config.json": (
        ("bert",),
        {CONFIG: SILENT, "config.json": FAST, "tokenizer.json": CASED},
    ),
    "whole with steps": (("roberta",), {CONFIG: FAST, "tokenizer.json": STEPS}),
    "steps": (("roberta",), {"tokenizer.json": STEPS}),
    "prefix": (("roberta",), {CONFIG: {"add_prefix_space": True}}),
    "no prefix": (
        ("xlm-roberta", "albert", "deberta-v2"),
        {CONFIG: {"add_prefix_space": False}},
    ),
    "keep": (
        ("albert",),
        {CONFIG: {"keep_accents": True, "do_lower_case": False}},
    ),
    "split": (
        ("deberta-v2",),
        {CONFIG: {"split_by_punct": True, "do_lower_case": True}},
    ),
}


def with_changes(folder_of, kind, changes, target):
    """Copy the files of a kind, with other values in some; None removes one."""
    folder, peer = folder_of(kind, "tokenizer.json" in changes)
    shutil.copytree(folder, target, ignore=lambda *_: ["saved"])
    for name, values in changes.items():
        if values is None:
            (target / name).unlink()
            continue
        values = values(len(peer)) if callable(values) else values
        values = {values: len(peer)} if isinstance(values, str) else values
        values = values[kind] if values is ENDS else values
        path = target / name
        old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(old.get(key), dict)
            inner = both and "type" not in value
            old[key] = (old[key] | value) if inner else value
        old = {key: value for key, value in old.items() if value is not None}
        text_folders.dump(target, name, old)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_files_are_obeyed(name, folder_of, tmp_path):
    """As transformers does; see `SETTINGS`."""
    kinds, changes = SETTINGS[name]
    texts = text_folders.texts(50)
    texts += ["a <box> b", "<box>", "a<box>b <BOX> <ent>", "THE <ent>Dog"]
    for kind in kinds:
        folder = tmp_path / kind
        with_changes(folder_of, kind, changes, folder)
        peer = transformers.AutoTokenizer.from_pretrained(folder)
        ours = unimodal.tokenizer(folder, LENGTH)
        ids, mask = packed(peer, ours, texts)
        made, first = ours.encode(texts), int(ours.adds_start)
        wrong = (made["token_ids"][:, first:] != ids).any(1)
        found = [texts[i][:80] for i in np.flatnonzero(wrong)]
        assert (kind, found) == (kind, [])
        made = made["padding_mask"][:, first:]
        np.testing.assert_array_equal(made, mask)
        assert ours.vocabulary_size() == len(peer)
        assert ours.mask_token_id == peer.mask_token_id or kind == "siglip2"


ONE = [{"Sequence": {"id": "A", "type_id": 0}}]
BARE = {"type": "TemplateProcessing", "single": ONE, "pair": ONE}
BARE = {"post_processor": {**BARE, "special_tokens": {}}}
LEFT = {"direction": "Left", "max_length": 9, "stride": 0}
LEFT = {"truncation": {**LEFT, "strategy": "LongestFirst"}}


XLM, JSON, OWN = ("xlm-roberta",), "tokenizer.json", "config.json"
CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "AA"}


def added(number):
    return {"added_tokens": [{"id": number, "content": "<x>"}]}


# Kinds, the file and what is changed in it, and the error.
REFUSED = [
    (ENDS, CONFIG, {"truncation_side": "left"}, "truncation_side='left'"),
    (ENDS, CONFIG, {"padding_side": "left"}, "padding_side='left'"),
    (("siglip2",), CONFIG, {"padding_side": None}, "padding_side='left'"),
    (OTHERS, JSON, LEFT, "truncation.direction='left'"),
    (("bert",), CONFIG, {"tokenizer_class": "MPNetTokenizer"}, "'MPNet"),
    (("bert",), CONFIG, {"tokenizer_class": "Herbert"}, "'Herbert'"),
    (("siglip",), CONFIG, EXTRA, "'<ent>'"),
    (OTHERS, JSON, BARE, "must pack texts"),
    (("siglip2",), CONFIG, {"eos_token": "<mask>"}, "<eos>"),
    (XLM, "added_tokens.json", {"<box>": 5}, "'<box>': 5"),
    # Of another encoder.
    (XLM, OWN, {"vocab_size": 100}, "vocab_size=100"),
    (XLM, OWN, {"pad_token_id": 7}, "pad_token_id=7, but 1"),
    (("distilbert",), OWN, {"vocab_size": "many"}, "vocab_size='many'"),
    (("siglip",), OWN, {"text_config": {"vocab_size": 5}}, "vocab_size=5"),
    (("clip",), OWN, {"max_position_embeddings": "x"}, "must be readable"),
    (("clip",), OWN, {"model_type": "gpt2"}, "of type .*xlm-roberta, roberta"),
    # Incomplete or damaged.
    (("roberta",), "vocab.json", None, "vocab.json"),
    (("roberta",), "merges.txt", None, "merges.txt"),
    (("roberta",), JSON, {"model": {"merges": ["x y"]}}, "out of vocabulary"),
    (("roberta",), JSON, {"model": {"merges": ["a b c"]}}, "must be pairs"),
    (("roberta",), JSON, {"model": {"type": "WordPiece", "vocab": {}}}, "BPE"),
    (XLM, JSON, {"model": {"type": "WordPiece", "vocab": []}}, "type Unigram"),
    (("roberta", *XLM), JSON, added(0), "'<x>': 0, .* in the vocabulary"),
    (XLM, JSON, {"added_tokens": [3]}, "must be readable"),
    (XLM, JSON, {"model": {"vocab": [["a", "b"]]}}, "ids of added tokens"),
    (XLM, JSON, {"model": {"vocab": [["a", 0.0]]}}, "or follow"),
    (XLM, JSON, {"normalizer": CHARACTERS}, "must be readable"),
]


@pytest.mark.parametrize("kinds, file, values, found", REFUSED)
def test_settings_that_are_refused(
    kinds, file, values, found, folder_of, tmp_path
):
    for kind in kinds:
        folder = tmp_path / kind
        changes = {CONFIG: FAST} if values is BARE else {}
        with_changes(folder_of, kind, {**changes, file: values}, folder)
        with pytest.raises(ConversionError, match=found) as error:
            unimodal.tokenizer(folder)
        assert str(folder) in str(error.value)
        if file != "added_tokens.json" and "=" in found:
            assert file in str(error.value)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_lower_case_of_sentence_transformers(kind, folder_of, tmp_path):
    """It lowers texts by Python, also for cased tokenizers."""
    changes = {"sentence_bert_config.json": {"do_lower_case": True}}
    changes[CONFIG] = {"do_lower_case": False}
    with_changes(folder_of, kind, changes, tmp_path / kind)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
    ours = unimodal.tokenizer(tmp_path / kind, LENGTH)
    texts = text_folders.texts(50, seed=4)
    ids, _ = packed(peer, ours, [text.lower() for text in texts])
    made = ours.encode(texts)["token_ids"]
    np.testing.assert_array_equal(made[:, ours.adds_start :], ids)


DOUBLES = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BYTES = dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), False)
BYTES = {"type": "ByteLevel", **BYTES}
GROWS = {
    "normalizer": {"type": "Sequence", "normalizers": [DOUBLES] * 40},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40},
    "decoder": {"type": "Sequence", "decoders": [DOUBLES] * 40},
}
REGEX = {**DOUBLES, "pattern": {"Regex": "(?<=.)"}, "content": "x" * 99}
NESTED = {"type": "Sequence", "normalizers": [REGEX, REGEX]}


@pytest.mark.parametrize("part", [*GROWS, "nested"])
def test_steps_that_grow_without_bound(part, folder_of, tmp_path):
    """Of a folder and of a preset; a process without memory aborts."""
    values = {part: GROWS.get(part)}
    if part == "nested":
        nested = {"type": "Sequence", "normalizers": [NESTED, NESTED]}
        values = {"normalizer": nested}
    changes = {CONFIG: FAST, "tokenizer.json": {}}
    with_changes(folder_of, "xlm-roberta", changes, tmp_path / "whole")
    ours = unimodal.tokenizer(tmp_path / "whole", LENGTH)
    path = tmp_path / "whole" / JSON
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values))
    with pytest.raises(ConversionError, match="50,000 times"):
        unimodal.tokenizer(tmp_path / "whole", LENGTH)
    ours.save_assets(tmp_path)
    path = tmp_path / ours.file_assets[0]
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values))
    with pytest.raises(ValueError, match="50,000 times"):
        ours.load_assets(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_vocabularies_of_more_than_a_million(kind, folder_of, monkeypatch):
    assert packed_tokenizer.MOST_TOKENS == 1_000_000
    monkeypatch.setattr(packed_tokenizer, "MOST_TOKENS", 99)
    with pytest.raises(ConversionError, match="at most 99 tokens"):
        unimodal.tokenizer(folder_of(kind)[0])


def test_clip_pads_as_its_file_says(folder_of, tmp_path):
    """open_clip pads with the id 0, which is an exclamation mark."""
    folder, _ = folder_of("clip")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text_folders.dump(tmp_path, "tokenizer_config.json", {"pad_token": "!"})
    ours = tokenizers.read(tmp_path, "clip", 9)
    made = ours.encode("a!")
    assert ours.pad_token_id == 0
    assert made["token_ids"].tolist()[4:] == [0] * 5
    assert made["padding_mask"].tolist() == [1] * 4 + [0] * 5


@pytest.mark.parametrize("form", text_folders.FORMS)
def test_every_form_of_a_few_words(form, tmp_path):
    words, merges = text_folders.few_words()
    text_folders.FORMS[form](tmp_path, words, merges)
    ids = tokenizers.read(tmp_path, "roberta", 7)("two cat red")
    two, cat, red = words["two"], words["Ġcat"], words["Ġred"]
    assert ids.tolist() == [0, two, cat, red, 2, 1, 1]


def test_tokenizer_json_comes_before_the_lists(tmp_path):
    """transformers does the same."""
    words, merges = text_folders.few_words()
    text_folders.FORMS["published"](tmp_path, words, merges)
    text_folders.FORMS["lists alone"](tmp_path, words, merges[:3])
    ids = tokenizers.read(tmp_path, "roberta", 5)("two red")
    assert ids.tolist() == [0, words["two"], words["Ġred"], 2, 1]


def test_bert_tokenizer_json_without_type_is_read(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "two", "cat", "##s"]
    model = {
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {token: i for i, token in enumerate(tokens)},
    }
    text_folders.dump(tmp_path, "tokenizer.json", {"model": model})
    text_folders.dump(tmp_path, "config.json", {"model_type": "bert"})
    found = unimodal.tokenizer(tmp_path, sequence_length=7)
    assert found("Two cats").tolist() == [2, 5, 6, 7, 3, 0, 0]


def test_the_guide_names_every_model_type():
    page = pathlib.Path(__file__).parents[2] / "docs/guides/tokenizers.md"
    text = page.read_text("utf-8")
    assert [
        kind for kind in files_by_type("text") if f"`{kind}`" not in text
    ] == []
