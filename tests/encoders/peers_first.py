"""CLIP, ViT, DeiT; RoBERTa and BERT."""

import inspect
import operator

import torch
import transformers
from peers import VOCABULARY
from peers import Peer
from peers import count
from peers import pixels
from peers import randomised
from peers import with_norm

IMAGE = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=32,
    patch_size=8,
)
TEXT = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=VOCABULARY,
    max_position_embeddings=40,
)


def clip():
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGE)
    return randomised(transformers.CLIPModel(config))


def vit():
    config = transformers.ViTConfig(**IMAGE, layer_norm_eps=1e-12)
    return randomised(transformers.ViTForImageClassification(config))


def vit_with_pooler():
    config = transformers.ViTConfig(**IMAGE, layer_norm_eps=1e-12)
    return randomised(transformers.ViTModel(config))


def deit():
    return randomised(transformers.DeiTModel(transformers.DeiTConfig(**IMAGE)))


def roberta():
    config = transformers.RobertaConfig(
        **TEXT, layer_norm_eps=1e-5, type_vocab_size=1
    )
    return randomised(transformers.RobertaForMaskedLM(config))


def bert():
    return randomised(transformers.BertModel(transformers.BertConfig(**TEXT)))


def image_states(encoder, norm):
    """Return a function that reads the states of an image encoder.

    Args:
        encoder: function of a model that returns its image encoder.
        norm: str, name of the encoder's final norm.
    """

    def states(model, images):
        part = encoder(model)
        options = {"output_hidden_states": True}
        # Others do it without an option, or have no table of positions.
        if (
            "interpolate_pos_encoding"
            in inspect.signature(part.forward).parameters
        ):
            options["interpolate_pos_encoding"] = True
        with torch.no_grad():
            found = part(pixels(images), **options)
        return with_norm(found.hidden_states[1:], getattr(part, norm))

    return states


def text_states(encoder):
    """Return a function that reads the states of a text encoder."""

    def states(model, inputs):
        with torch.no_grad():
            found = encoder(model)(
                torch.tensor(inputs["token_ids"], dtype=torch.int64),
                attention_mask=torch.tensor(inputs["padding_mask"]),
                output_hidden_states=True,
            )
        return [x.numpy() for x in found.hidden_states[1:]]

    return states


def part_of(name):
    return operator.attrgetter(name) if name else lambda m: m


def image(name, make, part="", norm="layernorm", without=(), **kwargs):
    """Return a peer whose image encoder is a part of a model."""
    encoder = part_of(part)
    values = dict(
        states=image_states(encoder, norm),
        parameters=lambda m: count(encoder(m), without=without),
    )
    return Peer(name=name, side="image", make=make, **values | kwargs)


def text(name, make, part="", without=(), less=0, **kwargs):
    """Return a peer whose text encoder is a part of a model."""
    encoder = part_of(part)
    values = dict(
        states=text_states(encoder),
        parameters=lambda m: count(encoder(m), without=without) - less,
    )
    return Peer(name=name, side="text", make=make, **values | kwargs)


# KerasHub's RoBERTa has no rows of positions for padding, and no token type.
OF_ROBERTA = 3 * TEXT["hidden_size"]

PEERS = [
    image("CLIP", clip, "vision_model", "post_layernorm"),
    image("ViT", vit, "vit"),
    image("ViT with pooler", vit_with_pooler, without=["pooler"]),
    image("DeiT", deit, without=["pooler"]),
    text("RoBERTa", roberta, "roberta", less=OF_ROBERTA),
    text("BERT", bert, without=["pooler"]),
]
