"""Folders of text encoders: heads of other tasks, bad values."""

import json
import re

import peers_first
import peers_texts
import pytest
import transformers
from builders import FASTEST
from builders import long_but

from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

# Names of classes, and tiny models.
FAMILIES = {
    "Bert": peers_first.bert,
    "Roberta": peers_first.roberta,
    "XLMRoberta": peers_texts.xlm_roberta,
    "DistilBert": peers_texts.distilbert,
    "Electra": lambda: peers_texts.electra(transformers.ElectraModel, 16),
    "Albert": lambda: peers_texts.albert(2, 1, 1),
    "DebertaV2": peers_texts.deberta,
}
HEADS = (
    *("Model", "ForMaskedLM", "ForPreTraining", "ForNextSentencePrediction"),
    *("ForSequenceClassification", "ForTokenClassification"),
    *("ForQuestionAnswering", "ForMultipleChoice"),
)
PAIRS = [
    (family, head)
    for family in FAMILIES
    for head in HEADS
    if hasattr(transformers, family + head)
]


# The quick run has every family and every head, but not each with each.
@FASTEST
@pytest.mark.parametrize("pair", long_but(PAIRS, *PAIRS[2::3]), ids="-".join)
def test_a_model_with_any_head_opens(pair, tmp_path):
    family, head = pair
    made = FAMILIES[family]()
    model = getattr(transformers, family + head)(made.config)
    model.save_pretrained(tmp_path)
    assert unimodal.text_encoder(tmp_path).num_layers == 2


@FASTEST
@pytest.mark.parametrize(
    "family, values",
    [
        ("DistilBERT", {"activation": "relu"}),
        ("DistilBERT", {"n_layers": 3}),
        ("DistilBERT", {"dim": 64}),
        ("XLM-RoBERTa", {"layer_norm_eps": 1e-12}),
        ("ELECTRA", {"hidden_act": "gelu_new"}),
        ("ELECTRA", {"embedding_size": 32}),
        ("ELECTRA", {"type_vocab_size": 3}),
        ("ALBERT", {"hidden_act": "gelu"}),
        ("ALBERT", {"num_hidden_layers": 10_000}),
        ("ALBERT", {"num_hidden_groups": 2}),
        ("DeBERTa-v3", {"conv_kernel_size": 3}),
        ("DeBERTa-v3", {"position_buckets": -1}),
        ("DeBERTa-v3", {"pos_att_type": ["c2p"]}),
        ("DeBERTa-v3", {"share_att_key": False}),
    ],
)
def test_a_value_that_cannot_be_computed_is_named(family, values, tmp_path):
    found = {peer.name: peer for peer in peers_texts.PEERS}
    found[family].make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    ((key, value),) = values.items()
    with pytest.raises(ConversionError, match=re.escape(f"{key}={value!r}")):
        unimodal.text_encoder(tmp_path)
