"""Encoders whose states are rows of patches or words."""

import inspect
import operator

import numpy as np
import torch
import transformers
from peers import LENGTH
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
DINO = {k: v for k, v in IMAGE.items() if k != "intermediate_size"}
DINO["mlp_ratio"] = 2
NAFLEX = {k: v for k, v in IMAGE.items() if k != "image_size"}
NAFLEX["num_patches"] = 16
# The tokenizer adds a start token.
FIXED = TEXT | {"max_position_embeddings": LENGTH - 1}
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
EPSILON = {"layer_norm_eps": 1e-5}
OF_ROBERTA = EPSILON | {"type_vocab_size": 1}


def made(name, model="Model", **values):
    """Return a function that makes a model of `transformers`."""
    config = getattr(transformers, f"{name}Config")
    cls = getattr(transformers, f"{name}{model}")
    return lambda **more: randomised(cls(config(**values | more)))


def siglip(**changed):
    """SigLIP, with changed values of its image encoder."""
    parts = {"text_config": FIXED, "vision_config": IMAGE | changed}
    return made("Siglip", **parts)()


def metaclip2(act):
    text, image = (values | {"hidden_act": act} for values in (TEXT, IMAGE))
    return made("MetaClip2", text_config=text, vision_config=image)


clip = made("CLIP", text_config=TEXT, vision_config=IMAGE)
siglip2 = made("Siglip2", text_config=FIXED, vision_config=NAFLEX)
vit = made("ViT", "ForImageClassification", **IMAGE, layer_norm_eps=1e-12)
dinov2 = made("Dinov2", "ForImageClassification", **DINO)
dinov2_with_registers = made(
    "Dinov2WithRegisters", **DINO, num_register_tokens=3
)
dinov3 = made("DINOv3ViT", **IMAGE)
roberta = made("Roberta", "ForMaskedLM", **TEXT, **OF_ROBERTA)
xlm_roberta = made("XLMRoberta", "ForMaskedLM", **TEXT, **OF_ROBERTA)
bert = made("Bert", **TEXT)
distilbert = made(
    "DistilBert", "ForMaskedLM", vocab_size=VOCABULARY, **DISTILBERT
)
electra = made("Electra", "ForPreTraining", **TEXT, embedding_size=16)
albert = made("Albert", "ForPreTraining", **TEXT, embedding_size=16)
deberta = made("DebertaV2", "ForMaskedLM", **TEXT, **DEBERTA)


def states_of(encoder, norm=None):
    """Return a function that reads the states of an image encoder.

    Args:
        encoder: function of a model that returns its image encoder.
        norm: str, name of the encoder's final norm, if it has one.
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
        return with_norm(found.hidden_states[1:], norm and getattr(part, norm))

    return states


def naflex_states(model, images):
    """States of square pictures, cut to patches row by row."""
    cells = images.reshape(2, 4, 8, 4, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    part = model.vision_model
    with torch.no_grad():
        found = part(
            torch.tensor(cells.reshape(2, 16, -1)),
            torch.ones((2, 16), dtype=torch.int64),
            torch.tensor([[4, 4]] * 2),
            output_hidden_states=True,
        )
    return with_norm(found.hidden_states[1:], part.post_layernorm)


def text_states(encoder, norm=None, first=0, masked=True):
    """Return a function that reads the states of a text encoder.

    Args:
        encoder, norm: as in `states_of`.
        first: int, the ids before it are not the encoder's.
        masked: bool, whether the encoder gets the padding mask.
    """

    def states(model, inputs):
        part, values = encoder(model), {"output_hidden_states": True}
        if masked:
            values["attention_mask"] = torch.tensor(inputs["padding_mask"])
        ids = np.int64(inputs["token_ids"][:, first:])
        with torch.no_grad():
            found = part(torch.tensor(ids), **values)
        return with_norm(found.hidden_states[1:], norm and getattr(part, norm))

    return states


def part_of(name):
    return operator.attrgetter(name) if name else lambda m: m


def image(name, make, part="", norm="layernorm", without=(), **kwargs):
    """Return a peer whose image encoder is a part of a model."""
    encoder = part_of(part)
    values = dict(
        states=states_of(encoder, norm),
        parameters=lambda m: count(encoder(m), without=without),
    )
    return Peer(name=name, side="image", make=make, **values | kwargs)


def text(name, make, part="", without=("pooler",), less=0, **kwargs):
    """Return a peer whose text encoder is a part of a model."""
    encoder = part_of(part)
    values = dict(
        states=text_states(encoder),
        parameters=lambda m: count(encoder(m), without=without) - less,
    )
    return Peer(name=name, side="text", make=make, **values | kwargs)


def of_dinov2(name, make, part):
    """Return a peer, whose positions KerasHub saves twice."""

    def parameters(model):
        encoder = part_of(part)(model)
        tables = encoder.embeddings.position_embeddings.numel()
        return count(encoder, without=["mask_token"]) + tables

    return image(name, make, part, parameters=parameters)


def of_dinov3(name, **values):
    return image(
        name, lambda: dinov3(**values), norm="norm", without=["mask_token"]
    )


def of_images(name, make, norm="post_layernorm", without=("head",), **kwargs):
    return image(name, make, "vision_model", norm, without, **kwargs)


def of_texts(name, make, first=0, masked=True, **kwargs):
    encoder = part_of("text_model")
    states = text_states(encoder, "final_layer_norm", first, masked)
    values = dict(states=states, masked=masked)
    return text(name, make, "text_model", ["head"], **values | kwargs)


# KerasHub's RoBERTa has no rows of positions for padding, and no token type.
LESS = 3 * TEXT["hidden_size"]

PEERS = [
    of_images("CLIP", clip, without=()),
    image("ViT", vit, "vit"),
    image("ViT with pooler", made("ViT", **IMAGE), without=["pooler"]),
    image("DeiT", made("DeiT", **IMAGE), without=["pooler"]),
    of_dinov2("DINOv2", dinov2, "dinov2"),
    of_dinov2("DINOv2 SwiGLU", lambda: dinov2(use_swiglu_ffn=True), "dinov2"),
    of_dinov2("DINOv2 registers", dinov2_with_registers, ""),
    of_dinov3("DINOv3", num_register_tokens=4),
    of_dinov3(
        "DINOv3 gated",
        num_register_tokens=4,
        use_gated_mlp=True,
        hidden_act="silu",
        key_bias=True,
        mlp_bias=False,
        rope_theta=50.0,
        layer_norm_eps=1e-6,
    ),
    of_images("SigLIP", siglip),
    # It resizes positions by another filter.
    of_images(
        "SigLIP 2 (NaFlex)", siglip2, states=naflex_states, resizes=False
    ),
    # Its last norm is for the pooled token alone.
    *(
        of_images(
            f"MetaCLIP 2 ({act})",
            metaclip2(act),
            norm=None,
            without=["head", "post_layernorm"],
        )
        for act in ("quick_gelu", "gelu")
    ),
    of_texts("CLIP", clip, summary="start"),
    of_texts("SigLIP", siglip, 1, masked=False),
    of_texts("SigLIP 2", siglip2, 1, masked=False),
    of_texts("MetaCLIP 2", metaclip2("quick_gelu"), summary="start"),
    text("RoBERTa", roberta, "roberta", less=LESS),
    text("BERT", bert),
    text("XLM-RoBERTa", xlm_roberta, "roberta", less=LESS),
    text("DistilBERT", distilbert, "distilbert"),
    text("ELECTRA", electra, "electra"),
    text(
        "ELECTRA without projection",
        lambda: electra(embedding_size=32),
        "electra",
    ),
    text("ALBERT", lambda: albert(num_hidden_layers=3), "albert"),
    text(
        "ALBERT with two groups of two blocks",
        lambda: albert(
            num_hidden_layers=4, num_hidden_groups=2, inner_group_num=2
        ),
        "albert",
    ),
    text("DeBERTa-v3", deberta, "deberta"),
    text("DeBERTa-v3 with long texts", deberta, "deberta", length=40),
]
