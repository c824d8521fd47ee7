"""XLM-RoBERTa, DistilBERT, ELECTRA, ALBERT and DeBERTa-v3."""

import transformers
from peers import VOCABULARY
from peers import Peer
from peers import count
from peers import randomised
from peers_first import OF_ROBERTA
from peers_first import TEXT
from peers_first import text_states


def xlm_roberta():
    config = transformers.XLMRobertaConfig(
        **TEXT, layer_norm_eps=1e-5, type_vocab_size=1
    )
    return randomised(transformers.XLMRobertaForMaskedLM(config))


def distilbert():
    config = transformers.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=40,
    )
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
    config = transformers.DebertaV2Config(
        **TEXT,
        relative_attention=True,
        position_biased_input=False,
        position_buckets=8,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        pos_att_type=["p2c", "c2p"],
    )
    return randomised(transformers.DebertaV2ForMaskedLM(config))


PEERS = [
    Peer(
        name="XLM-RoBERTa",
        side="text",
        make=xlm_roberta,
        states=text_states(lambda m: m.roberta),
        parameters=lambda m: count(m.roberta) - OF_ROBERTA,
    ),
    Peer(
        name="DistilBERT",
        side="text",
        make=distilbert,
        states=text_states(lambda m: m.distilbert),
        parameters=lambda m: count(m.distilbert),
    ),
    Peer(
        name="ELECTRA",
        side="text",
        make=lambda: electra(transformers.ElectraForPreTraining, 16),
        states=text_states(lambda m: m.electra),
        parameters=lambda m: count(m.electra),
    ),
    Peer(
        name="ELECTRA without projection",
        side="text",
        make=lambda: electra(transformers.ElectraForMaskedLM, 32),
        states=text_states(lambda m: m.electra),
        parameters=lambda m: count(m.electra),
    ),
    Peer(
        name="ALBERT",
        side="text",
        make=lambda: albert(3, 1, 1),
        states=text_states(lambda m: m.albert),
        parameters=lambda m: count(m.albert, without=["pooler"]),
    ),
    Peer(
        name="ALBERT with two groups of two blocks",
        side="text",
        make=lambda: albert(4, 2, 2),
        states=text_states(lambda m: m.albert),
        parameters=lambda m: count(m.albert, without=["pooler"]),
    ),
    Peer(
        name="DeBERTa-v3",
        side="text",
        make=deberta,
        states=text_states(lambda m: m.deberta),
        parameters=lambda m: count(m.deberta),
    ),
    Peer(
        name="DeBERTa-v3 with long texts",
        side="text",
        make=deberta,
        states=text_states(lambda m: m.deberta),
        parameters=lambda m: count(m.deberta),
        length=40,
    ),
]
