"""Folders of text encoders: heads of other tasks, bad values."""

import json
import re

import peers_texts
import pytest
import transformers
from builders import FASTEST
from builders import long_but

from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

SIZES = dict(
    vocab_size=20,
    max_position_embeddings=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    hidden_size=4,
    intermediate_size=8,
)
# The values of a configuration, and the models with other heads.
USUAL = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
DEBERTA = dict(
    relative_attention=True,
    position_biased_input=False,
    position_buckets=4,
    share_att_key=True,
    norm_rel_ebd="layer_norm",
    pos_att_type="p2c|c2p",
)
FAMILIES = {
    "Bert": (SIZES, (*USUAL, "ForPreTraining", "ForNextSentencePrediction")),
    "Roberta": (
        SIZES | dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1),
        USUAL,
    ),
    "XLMRoberta": (
        SIZES | dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1),
        USUAL,
    ),
    "DistilBert": (
        dict(vocab_size=20, dim=4, n_layers=1, n_heads=2, hidden_dim=8),
        USUAL,
    ),
    "Electra": (SIZES | dict(embedding_size=2), (*USUAL, "ForPreTraining")),
    "Albert": (SIZES | dict(embedding_size=2), (*USUAL, "ForPreTraining")),
    "DebertaV2": (SIZES | DEBERTA, USUAL),
}


PAIRS = [
    (family, head) for family, (_, all) in FAMILIES.items() for head in all
]


# The quick run has every family and every head, but not each with each.
@FASTEST
@pytest.mark.parametrize("pair", long_but(PAIRS, *PAIRS[2::3]), ids="-".join)
def test_a_model_with_any_head_opens(pair, tmp_path):
    family, head = pair
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family][0])
    model = getattr(transformers, f"{family}{head}")(config)
    model.save_pretrained(tmp_path)
    encoder = unimodal.text_encoder(tmp_path)
    assert encoder.num_layers == 1


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
