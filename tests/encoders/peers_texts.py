"""XLM-RoBERTa, DistilBERT, ELECTRA, ALBERT and DeBERTa-v3."""

import transformers
from peers import VOCABULARY
from peers import randomised
from peers_first import OF_ROBERTA
from peers_first import TEXT
from peers_first import text

DISTILBERT = dict(
    dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=40
)
DEBERTA = dict(
    relative_attention=True,
    position_biased_input=False,
    position_buckets=8,
    share_att_key=True,
    norm_rel_ebd="layer_norm",
    pos_att_type=["p2c", "c2p"],
)


def xlm_roberta():
    config = transformers.XLMRobertaConfig(
        **TEXT, layer_norm_eps=1e-5, type_vocab_size=1
    )
    return randomised(transformers.XLMRobertaForMaskedLM(config))


def distilbert():
    config = transformers.DistilBertConfig(vocab_size=VOCABULARY, **DISTILBERT)
    return randomised(transformers.DistilBertForMaskedLM(config))


def electra(cls, embedding_size):
    config = transformers.ElectraConfig(**TEXT, embedding_size=embedding_size)
    return randomised(cls(config))


def albert(layers, groups, inner):
    config = transformers.AlbertConfig(
        **TEXT | {"num_hidden_layers": layers},
        embedding_size=16,
        num_hidden_groups=groups,
        inner_group_num=inner,
    )
    return randomised(transformers.AlbertForPreTraining(config))


def deberta():
    config = transformers.DebertaV2Config(**TEXT, **DEBERTA)
    return randomised(transformers.DebertaV2ForMaskedLM(config))


PEERS = [
    text("XLM-RoBERTa", xlm_roberta, "roberta", less=OF_ROBERTA),
    text("DistilBERT", distilbert, "distilbert"),
    text(
        "ELECTRA",
        lambda: electra(transformers.ElectraForPreTraining, 16),
        "electra",
    ),
    text(
        "ELECTRA without projection",
        lambda: electra(transformers.ElectraForMaskedLM, 32),
        "electra",
    ),
    text("ALBERT", lambda: albert(3, 1, 1), "albert", ["pooler"]),
    text(
        "ALBERT with two groups of two blocks",
        lambda: albert(4, 2, 2),
        "albert",
        ["pooler"],
    ),
    text("DeBERTa-v3", deberta, "deberta"),
    text("DeBERTa-v3 with long texts", deberta, "deberta", length=40),
]
