"""transformers' BridgeTower as the peer: build it, copy its weights."""

import numpy as np
import torch
import transformers
from builders import array
from builders import clip
from builders import roberta

import keras_bridgetower as kbt

SMALL = dict(hidden=64, layers=4, fused=3, heads=4, vocabulary=100, side=64)
PUBLISHED = dict(fused=6, vocabulary=50_265)
BASE = PUBLISHED | dict(hidden=768, layers=12, heads=12, side=288)
LARGE = PUBLISHED | dict(hidden=1024, layers=24, heads=16, side=294, patch=14)
LINKS = {
    **{name: name for name in ("add", "scaled_add")},
    "interpolate": "interpolate_scalar",
}


def peer(size, link="add", shared_projections=True):
    """A random transformers model for image-text matching, in inference."""
    torch.manual_seed(0)
    config = transformers.BridgeTowerConfig(
        hidden_size=size["hidden"],
        num_hidden_layers=size["fused"],
        num_attention_heads=size["heads"],
        intermediate_size=4 * size["hidden"],
        link_tower_type=link,
        share_cross_modal_transformer_layers=shared_projections,
        text_config=dict(
            vocab_size=size["vocabulary"],
            hidden_size=size["hidden"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"],
            intermediate_size=4 * size["hidden"],
            max_position_embeddings=66,
        ),
        vision_config=dict(
            hidden_size=size["hidden"],
            num_hidden_layers=size["layers"],
            image_size=size["side"],
            patch_size=size.get("patch", 16),
        ),
    )
    cls = transformers.BridgeTowerForImageAndTextRetrieval
    return randomise(cls(config).eval())


def randomise(model):
    """Give a model of transformers random weights, the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            # Norms near one, the rest large enough to make a difference.
            noise = torch.randn(p.shape, generator=generator)
            norm = p.ndim == 1 and name.endswith("weight")
            p.copy_(float(norm) + noise * (0.1 if p.ndim < 2 else 0.05))
    return model


def ours(size, link="add", shared_projections=True):
    """Our backbone of the same architecture."""
    width, layers, heads = (size[k] for k in ("hidden", "layers", "heads"))
    return kbt.BridgeTowerBackbone(
        clip(width, layers, width // 64, size["side"], 16),
        roberta(width, layers, heads, size["vocabulary"]),
        hidden_dim=width,
        num_heads=size["heads"],
        num_layers=size["fused"],
        bridge=LINKS[link],
        projections="shared" if shared_projections else "per_layer",
        dropout=0.0,
    )


def inputs(size, batch=2, tokens=12):
    """The same features for both: (ours, the peer's)."""
    rng = np.random.default_rng(3)
    side, vocabulary = size["side"], size["vocabulary"]
    mask = np.ones((batch, tokens), "int32")
    mask[batch - 1, tokens // 2 :] = 0
    ids = rng.integers(4, vocabulary, (batch, tokens))
    ids = np.where(mask == 1, ids, 1).astype("int32")
    images = rng.normal(size=(batch, side, side, 3)).astype("float32")
    mine = {"images": images, "token_ids": ids, "padding_mask": mask}
    theirs = {
        "pixel_values": torch.tensor(images.transpose(0, 3, 1, 2)),
        "input_ids": torch.tensor(ids.astype("int64")),
        "attention_mask": torch.tensor(mask.astype("int64")),
    }
    return mine, theirs


def copy_weights(model, backbone):
    """Copy every tensor of the peer, each variable set exactly once."""
    left = {w.path: w for w in backbone.trainable_weights}
    assert len(left) == len(backbone.trainable_weights)
    tensors = {k: v.numpy() for k, v in model.bridgetower.state_dict().items()}

    def put(layer, name, value):
        (weight,) = (w for w in layer.weights if w.path.endswith(name))
        assert tuple(weight.shape) == value.shape, (weight.path, value.shape)
        weight.assign(value)
        del left[weight.path]

    def dense(layer, name, key):
        put(layer, f"{name}kernel", tensors[f"{key}.weight"].T)
        put(layer, f"{name}bias", tensors[f"{key}.bias"])

    def norm(layer, name, key):
        put(layer, f"{name}gamma", tensors[f"{key}.weight"])
        put(layer, f"{name}beta", tensors[f"{key}.bias"])

    def heads(layer, name, weight, bias):
        (target,) = (w for w in layer.weights if w.path.endswith(f"{name}bias"))
        put(layer, f"{name}kernel", weight.T.reshape(-1, *target.shape))
        put(layer, f"{name}bias", bias.reshape(target.shape))

    def attention(layer, name, key):
        for part in ("query", "key", "value"):
            source = f"{key}.self.{part}"
            weight, bias = (
                tensors[f"{source}.weight"],
                tensors[f"{source}.bias"],
            )
            heads(layer, f"{name}/{part}/", weight, bias)
        output(layer, name, f"{key}.output.dense")

    def output(layer, name, key):
        name = f"{name}/attention_output/"
        weights = (w for w in layer.weights if w.path.endswith(f"{name}kernel"))
        (kernel,) = weights
        weight = tensors[f"{key}.weight"].T
        put(layer, f"{name}kernel", weight.reshape(kernel.shape))
        put(layer, f"{name}bias", tensors[f"{key}.bias"])

    def each(copy, layer, key, names):
        for name, theirs in names.items():
            copy(layer, f"{name}/", f"{key}.{theirs}")

    output_norm = "output.LayerNorm"

    text, key = backbone.text_encoder, "text_model.embeddings"
    positions = tensors[f"{key}.position_embeddings.weight"][2:]
    positions = positions + tensors[f"{key}.token_type_embeddings.weight"]
    word = tensors[f"{key}.word_embeddings.weight"]
    put(text.embeddings.token_embedding, "embeddings", word)
    put(text.embeddings.position_embedding, "embeddings", positions)
    norm(text.embeddings_layer_norm, "", f"{key}.LayerNorm")
    for i, layer in enumerate(text.transformer_layers):
        key = f"text_model.encoder.layer.{i}"
        attention(layer, "self_attention_layer", f"{key}.attention")
        norms = {"attention_layer_norm": f"attention.{output_norm}"}
        norms["feedforward_layer_norm"] = output_norm
        each(norm, layer, key, norms)
        denses = {"feedforward_intermediate_dense": "intermediate.dense"}
        denses["feedforward_output_dense"] = "output.dense"
        each(dense, layer, key, denses)

    vision, key = backbone.image_encoder, "vision_model.visual"
    embedded = {
        name: tensors[f"{key}.embeddings.{name}"]
        for name in (
            "class_embedding",
            "patch_embedding.weight",
            "position_embedding.weight",
        )
    }
    classes, patches, positions = embedded.values()
    put(vision.embedding, "class_embedding", classes)
    patches = patches.transpose(2, 3, 1, 0)
    put(vision.embedding, "patch_embedding/kernel", patches)
    put(vision.embedding, "position_embedding/embeddings", positions)
    norm(vision.pre_layer_norm, "", f"{key}.ln_pre")
    norm(vision.layer_norm, "", f"{key}.ln_post")
    for i, layer in enumerate(vision.encoder_layers):
        key = f"vision_model.visual.transformer.resblocks.{i}"
        weights = np.split(tensors[f"{key}.attn.in_proj_weight"], 3)
        biases = np.split(tensors[f"{key}.attn.in_proj_bias"], 3)
        for at, part in enumerate(("query", "key", "value")):
            heads(layer, f"attention/{part}/", weights[at], biases[at])
        output(layer, "attention", f"{key}.attn.out_proj")
        norms = {"layer_norm_1": "ln_1", "layer_norm_2": "ln_2"}
        each(norm, layer, key, norms)
        each(
            dense, layer, key, {"dense_1": "mlp.c_fc", "dense_2": "mlp.c_proj"}
        )

    fusion = backbone.fusion
    rows = np.zeros(fusion.type_embedding.shape, "float32")
    rows[:2] = tensors["token_type_embeddings.weight"]
    rows[2] = rows[1]
    put(fusion, "type_embedding", rows)
    for side in ("text", "image"):
        projections = getattr(fusion, f"{side}_projections")
        for i, layer in enumerate(projections):
            shared = fusion.projections == "shared"
            key = f"cross_modal_{side}_transform" + ("" if shared else f".{i}")
            dense(layer, "", key)
        entry, pooler = (
            getattr(fusion, f"{side}_{name}") for name in ("entry", "pooler")
        )
        norm(entry, "", f"cross_modal_{side}_layernorm")
        dense(pooler, "", f"cross_modal_{side}_pooler.dense")
        for i, bridge in enumerate(getattr(fusion, f"{side}_bridges")[1:]):
            key = f"cross_modal_{side}_link_tower.{i}"
            norm(bridge, "layer_norm/", f"{key}.LayerNorm")
            for name, own in {"scaled_factor": "scale", "beta": "beta"}.items():
                if f"{key}.{name}" in tensors:
                    put(
                        bridge, f"{bridge.name}/{own}", tensors[f"{key}.{name}"]
                    )
        for i, step in enumerate(fusion.steps):
            layer = getattr(step, f"{side}_layer")
            key = f"cross_modal_{side}_layers.{i}"
            attention(layer, "self_attention", f"{key}.attention")
            attention(layer, "cross_attention", f"{key}.crossattention")
            norms = {"self_attention_norm": f"attention.{output_norm}"}
            norms["cross_attention_norm"] = f"crossattention.{output_norm}"
            norms["feedforward_norm"] = output_norm
            each(norm, layer, key, norms)
            denses = {"intermediate_dense": "intermediate.dense"}
            each(dense, layer, key, denses | {"output_dense": "output.dense"})
    assert not left, sorted(left)


def pair(size, **kwargs):
    """The peer and our backbone with its weights."""
    model, backbone = peer(size, **kwargs), ours(size, **kwargs)
    copy_weights(model, backbone)
    return model, backbone


def differences(size, **kwargs):
    """Largest differences of all outputs for the same random weights."""
    model, backbone = pair(size, **kwargs)
    mine, theirs = inputs(size)
    got = {k: array(v) for k, v in backbone(mine, training=False).items()}
    with torch.no_grad():
        expected = model.bridgetower(**theirs)
        logits = model(**theirs).logits.numpy()
    head = {k: v.numpy() for k, v in model.itm_score.fc.state_dict().items()}
    itm = got["pooled"] @ head["weight"].T + head["bias"]
    kept = mine["padding_mask"] == 1
    text = expected.text_features.numpy()
    return {
        "text": np.abs(got["text"] - text)[kept].max(),
        "image": np.abs(got["image"] - expected.image_features.numpy()).max(),
        "pooled": np.abs(got["pooled"] - expected.pooler_output.numpy()).max(),
        "itm": np.abs(itm - logits).max(),
    }
