"""Tokenizer files in every form that is published, and damaged ones."""

import json

import pytest
import tokenizer_files
from builders import FASTEST
from tokenizer_files import few_words

from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

pytestmark = FASTEST


@pytest.mark.parametrize("form", tokenizer_files.FORMS)
def test_every_form_of_a_few_words(form, tmp_path):
    tokenizer_files.write(tmp_path, form, *few_words())
    found = tokenizers.read(tmp_path, "roberta", 12)
    words = few_words()[0]
    assert found("two cat red").tolist() == [
        *(0, words["two"], words["Ġcat"], words["Ġred"], 2),
        *([1] * 7),
    ]


def changed(folder, file="tokenizer.json", **levels):
    """Other values in the files that are published, or one more file."""
    tokenizer_files.write(folder, "published", *few_words())
    path = folder / file
    values = json.loads(path.read_text()) if path.is_file() else {}
    for level, value in levels.items():
        if isinstance(values.get(level), dict):
            values[level].update(value)
        else:
            values[level] = value
    tokenizer_files.dump(path, values)


def added(content, **kwargs):
    return {"added_tokens": [{"id": 0, "content": content, **kwargs}]}


@pytest.mark.parametrize(
    "change, found",
    [
        ({"model": {"merges": ["x y"]}}, "out of vocabulary"),
        ({"model": {"merges": ["a b c"]}}, "`merges` must be pairs"),
        ({"model": {"type": "WordPiece"}}, "must be of type BPE"),
        (added("<box>"), "'<box>': 0, 47 in the vocabulary"),
        ({"file": "added_tokens.json", "<box>": 60}, "'<box>': 60, 47 in"),
    ],
)
def test_unsupported_tokenizer_settings_are_rejected(change, found, tmp_path):
    changed(tmp_path, **change)
    with pytest.raises(ConversionError, match=found) as error:
        tokenizers.read(tmp_path, "roberta", 12)
    assert str(tmp_path) in str(error.value)


def test_tokenizer_json_comes_before_the_lists(tmp_path):
    """transformers does the same."""
    words, merges = few_words()
    tokenizer_files.write(tmp_path, "lists alone", words, merges[:3])
    values = tokenizer_files.whole(words, merges)
    tokenizer_files.dump(tmp_path / "tokenizer.json", values)
    ids = tokenizers.read(tmp_path, "roberta", 5)("two red")
    assert ids.tolist() == [0, words["two"], words["Ġred"], 2, 1]


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_incomplete_tokenizer_is_rejected(name, tmp_path):
    tokenizer_files.write(tmp_path, "lists alone", *few_words())
    (tmp_path / name).unlink()
    with pytest.raises(ConversionError, match=name):
        tokenizers.read(tmp_path, "roberta", 12)


def test_bert_tokenizer_json_without_type_is_read(tmp_path):
    """Its tokenizer.json has no model type, as RoBERTa's."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "two", "cat", "##s"]
    model = {
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {token: i for i, token in enumerate(tokens)},
    }
    tokenizer_files.dump(tmp_path / "tokenizer.json", {"model": model})
    tokenizer_files.dump(tmp_path / "config.json", {"model_type": "bert"})
    found = unimodal.tokenizer(tmp_path, sequence_length=7)
    assert found("Two cats").tolist() == [2, 5, 6, 7, 3, 0, 0]
