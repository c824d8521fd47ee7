"""Tiny models of `transformers`, the peers of our encoders."""

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable

import numpy as np
import torch
import transformers

VOCABULARY, LENGTH = 60, 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A tiny model with random weights, and the states that we must compute.

    Args:
        name: str, shown by pytest and in the table of the documents.
        side: `"image"` or `"text"`.
        make: function that returns a model of `transformers`; it is saved by
            `save_pretrained` and opened by `convert.unimodal`.
        states: function of the model and the inputs that returns the expected
            states, lowest first: arrays `(batch, tokens, width)`, of grids
            `(batch, height, width, channels)`, after the final norm if there
            is one. `None` for a block whose state the peer does not give.
        image_size: int, side of the pictures.
        length: int, tokens of a text, as our tokenizer packs it.
        parameters: function of the model that returns the number of
            parameters that our tower has at all its states.
        masked: bool, whether the encoder hides padding. If not, states at
            padding are compared too.
        resizes: bool, whether `states` takes pictures of another size.
        summary: str, with which row 0 is the encoder's own, where the default
            replaces it.
    """

    name: str
    side: str
    make: Callable
    states: Callable
    parameters: Callable
    image_size: int = 32
    length: int = LENGTH
    masked: bool = True
    resizes: bool = True
    summary: str | None = None

    def __str__(self):
        return self.name


def randomised(model):
    """Return a model with weights that are larger than the initial ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = p.ndim == 1 and name.endswith("weight")
            p.copy_(float(norm) + torch.randn(p.shape) * 0.1)
    return model.eval()


def inputs_for(peer, seed=0):
    """Return the inputs of a peer as our tower takes them, in NumPy."""
    rng = np.random.default_rng(seed)
    if peer.side == "image":
        side = peer.image_size
        return rng.normal(size=(2, side, side, 3)).astype("float32")
    ids = rng.integers(5, VOCABULARY, (2, peer.length)).astype("int32")
    mask = np.ones_like(ids)
    mask[1, peer.length - 3 :] = 0
    ids = np.where(mask == 1, ids, 1).astype("int32")
    return {
        "token_ids": ids,
        "padding_mask": mask,
        "segment_ids": np.zeros_like(ids),
    }


def pixels(images):
    """Return images as `transformers` takes them."""
    return torch.tensor(images.transpose(0, 3, 1, 2))


def count(module, without=()):
    """Return the number of parameters, of shared ones once."""
    return sum(
        p.numel()
        for name, p in module.named_parameters()
        if not any(part in name for part in without)
    )


def with_norm(states, norm=None):
    """Return states, after a final norm if there is one, as arrays."""
    with torch.no_grad():
        return [(norm(x) if norm else x).numpy() for x in states]


# --- Encoders whose states are rows of patches or words ---

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
        resized = "interpolate_pos_encoding"
        if resized in inspect.signature(part.forward).parameters:
            options[resized] = True
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
        parameters=lambda m: count(encoder(m), without),
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


# --- Feature pyramids ---


def efficientnet(side, square=()):
    """Return a model whose blocks `square` halve an odd side."""
    config = transformers.EfficientNetConfig(
        image_size=side,
        width_coefficient=0.5,
        depth_coefficient=1.0,
        in_channels=[32, 16, 32, 48],
        out_channels=[16, 32, 48, 64],
        kernel_sizes=[3, 5, 3, 5],
        strides=[1, 2, 1, 2],
        num_block_repeats=[1, 2, 1, 1],
        expand_ratios=[1, 2, 3, 2],
        depthwise_padding=square,
        hidden_dim=640,
    )
    return moving(transformers.EfficientNetModel(config))


def moving(model):
    """Return a randomized model whose running statistics are random too.

    Outputs of convolutions are about as large as their inputs.
    """
    model = randomised(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 4:
                p.mul_(10 / p[0].numel() ** 0.5)
        for name, buffer in model.named_buffers():
            if "running" in name:
                noise = torch.rand(buffer.shape)
                buffer.copy_(noise + 0.5 * name.endswith("var"))
    return model


def of_maps(maps):
    return [None if x is None else x.permute(0, 2, 3, 1).numpy() for x in maps]


def efficientnet_states(model, images):
    with torch.no_grad():
        found = model(pixels(images), output_hidden_states=True)
    # The first is the output of the stem.
    return of_maps([*found.hidden_states[1:], found.last_hidden_state])


def count_with_statistics(model):
    """Return the number of weights: running statistics are none in PyTorch."""
    statistics = (b for n, b in model.named_buffers() if "running" in n)
    return count(model) + sum(b.numel() for b in statistics)


def resnet(kind, widths, first=64):
    values = dict(layer_type=kind, hidden_sizes=widths, embedding_size=first)
    config = transformers.ResNetConfig(depths=[2, 1], **values)
    return moving(transformers.ResNetModel(config))


def resnet_states(model, images):
    with torch.no_grad():
        found = model(pixels(images), output_hidden_states=True)
    _, *last = found.hidden_states
    # transformers gives no state inside of a stage.
    inside = [[None] * (depth - 1) for depth in model.config.depths]
    return of_maps([*inside[0], last[0], *inside[1], last[1]])


def swin(**kwargs):
    config = transformers.SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 3],
        num_heads=[1, 2],
        window_size=4,
        **kwargs,
    )
    return randomised(transformers.SwinModel(config))


def swin_states(model, images):
    with torch.no_grad():
        x, size = model.embeddings(pixels(images))
        states = []
        for stage in model.encoder.layers:
            for block in stage.blocks:
                x, _ = block(x, size)
                states.append(x.unflatten(1, size))
            if stage.downsample is not None:
                x = stage.downsample(x, size)
                size = tuple(n // 2 for n in size)
        states[-1] = model.layernorm(states[-1])
    return [x.numpy() for x in states]


def pyramid(name, make, states, parameters=count_with_statistics, **values):
    """Return a peer whose states are grids."""
    values |= dict(states=states, parameters=parameters, resizes=False)
    return Peer(name=name, side="image", make=make, **values)


PYRAMIDS = [
    pyramid("Swin", swin, swin_states, parameters=count),
    pyramid("EfficientNet", lambda: efficientnet(32), efficientnet_states),
    pyramid(
        "EfficientNet with odd sides",
        lambda: efficientnet(20, [4]),
        efficientnet_states,
        image_size=20,
    ),
    *(
        pyramid(
            f"ResNet of {kind} blocks",
            functools.partial(resnet, kind, widths),
            resnet_states,
            # Its files do not tell a size.
            image_size=224,
        )
        for kind, widths in {"basic": [64, 72], "bottleneck": [256, 32]}.items()
    ),
]
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
    *PYRAMIDS,
]
