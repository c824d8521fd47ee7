"""DINOv2, with registers and a gated MLP too, and DINOv3."""

import transformers
from peers import Peer
from peers import count
from peers import randomised
from peers_first import IMAGE
from peers_first import image_states

SIZES = {k: v for k, v in IMAGE.items() if k != "intermediate_size"}


def dinov2(**kwargs):
    config = transformers.Dinov2Config(**SIZES, mlp_ratio=2, **kwargs)
    return randomised(transformers.Dinov2ForImageClassification(config))


def dinov2_with_registers(**kwargs):
    config = transformers.Dinov2WithRegistersConfig(
        **SIZES, mlp_ratio=2, num_register_tokens=3, **kwargs
    )
    return randomised(transformers.Dinov2WithRegistersModel(config))


def dinov3(**kwargs):
    config = transformers.DINOv3ViTConfig(
        **IMAGE, num_register_tokens=4, **kwargs
    )
    return randomised(transformers.DINOv3ViTModel(config))


def of_dinov2(encoder):
    """Return the parameters of a DINOv2: KerasHub saves positions twice."""
    tables = encoder.embeddings.position_embeddings.numel()
    return count(encoder, without=["mask_token"]) + tables


def peer(name, make, encoder=lambda m: m, norm="layernorm", **kwargs):
    return Peer(
        name=name,
        side="image",
        make=make,
        states=image_states(encoder, norm),
        parameters=lambda m: of_dinov2(encoder(m)),
        **kwargs,
    )


def of_dinov3(name, **values):
    return Peer(
        name=name,
        side="image",
        make=lambda: dinov3(**values),
        states=image_states(lambda m: m, "norm"),
        parameters=lambda m: count(m, without=["mask_token"]),
    )


PEERS = [
    peer("DINOv2", dinov2, lambda m: m.dinov2),
    peer(
        "DINOv2 SwiGLU",
        lambda: dinov2(use_swiglu_ffn=True),
        lambda m: m.dinov2,
    ),
    peer("DINOv2 registers", dinov2_with_registers),
    of_dinov3("DINOv3"),
    of_dinov3(
        "DINOv3 gated",
        use_gated_mlp=True,
        hidden_act="silu",
        key_bias=True,
        mlp_bias=False,
        rope_theta=50.0,
        layer_norm_eps=1e-6,
    ),
]
