"""DINOv2, with registers and a gated MLP too, and DINOv3."""

import transformers
from peers import count
from peers import randomised
from peers_first import IMAGE
from peers_first import image
from peers_first import part_of

SIZES = {k: v for k, v in IMAGE.items() if k != "intermediate_size"}


def dinov2(**kwargs):
    config = transformers.Dinov2Config(**SIZES, mlp_ratio=2, **kwargs)
    return randomised(transformers.Dinov2ForImageClassification(config))


def dinov2_with_registers(**kwargs):
    config = transformers.Dinov2WithRegistersConfig(
        **SIZES, mlp_ratio=2, **{"num_register_tokens": 3} | kwargs
    )
    return randomised(transformers.Dinov2WithRegistersModel(config))


def dinov3(**kwargs):
    config = transformers.DINOv3ViTConfig(
        **IMAGE, num_register_tokens=4, **kwargs
    )
    return randomised(transformers.DINOv3ViTModel(config))


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


PEERS = [
    of_dinov2("DINOv2", dinov2, "dinov2"),
    of_dinov2("DINOv2 SwiGLU", lambda: dinov2(use_swiglu_ffn=True), "dinov2"),
    of_dinov2("DINOv2 registers", dinov2_with_registers, ""),
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
