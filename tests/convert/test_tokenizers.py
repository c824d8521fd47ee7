"""Tokenizer files in every form that is published, and damaged ones."""

import pytest
import tokenizer_files
from builders import FASTEST
from tokenizer_files import few_words

from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert import unimodal

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


def test_tokenizer_json_comes_before_the_lists(tmp_path):
    """transformers does the same."""
    words, merges = few_words()
    tokenizer_files.write(tmp_path, "lists alone", words, merges[:3])
    values = tokenizer_files.whole(words, merges)
    tokenizer_files.dump(tmp_path / "tokenizer.json", values)
    ids = tokenizers.read(tmp_path, "roberta", 5)("two red")
    assert ids.tolist() == [0, words["two"], words["Ġred"], 2, 1]


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
