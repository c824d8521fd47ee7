"""XLM-RoBERTa, DistilBERT and ELECTRA."""

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
]
