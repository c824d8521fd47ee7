"""Checkpoints of other libraries that the tests make."""

import numpy as np
import peer
import torch
import transformers
from builders import array

import keras_bridgetower as kbt

HEADS = {
    "itm": transformers.BridgeTowerForImageAndTextRetrieval,
    "mlm": transformers.BridgeTowerForMaskedLM,
    "itc": transformers.BridgeTowerForContrastiveLearning,
}
SIZE = peer.SMALL


def theirs(head="itm", size=SIZE, **kwargs):
    """A random model of transformers with a head."""
    return other_head(head, peer.peer(size, **kwargs))


def other_head(head, matching):
    """A model with another head on the very same backbone."""
    if head == "itm":
        return matching
    config = matching.config
    config.contrastive_hidden_size = 24
    config.logit_scale_init_value = 2.6592
    with torch.device("meta"):
        model = HEADS[head](config).eval()
    model.bridgetower = matching.bridgetower
    generator = torch.Generator().manual_seed(1)
    for name, module in model.named_children():
        if name != "bridgetower":
            module.to_empty(device="cpu")
            with torch.no_grad():
                for parameter in module.parameters():
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(noise * 0.05)
    if head == "itc":
        model.logit_scale = torch.nn.Parameter(torch.tensor(2.6592))
    return model


def with_all_heads(folder, **kwargs):
    """A folder of transformers that holds three heads; the three models."""
    matching = theirs(**kwargs)
    models = {head: other_head(head, matching) for head in HEADS}
    state = {k: v for m in models.values() for k, v in m.state_dict().items()}
    models["itc"].save_pretrained(folder, state_dict=state)
    return models


def run_theirs(models, size=SIZE):
    """Outputs of transformers' models by name."""
    _, inputs = peer.inputs(size)
    first = next(iter(models.values()))
    with torch.no_grad():
        out = first.bridgetower(**inputs)
        made = {
            "text": out.text_features,
            "image": out.image_features,
            "pooled": out.pooler_output,
        }
        for name, model in models.items():
            made[name] = model(**inputs).logits
        if "itc" in models:
            # transformers stacks text, image and fused.
            made["itc"] = made["itc"].transpose(0, 1)
            made["logit_scale"] = models["itc"].logit_scale
    return {name: value.detach().numpy() for name, value in made.items()}


def run_ours(backbone, heads, size=SIZE):
    """The same outputs of our backbone and heads."""
    features, _ = peer.inputs(size)
    out = {k: array(v) for k, v in backbone(features, training=False).items()}
    made = dict(out)
    for name in heads:
        if name == "mlm":
            made[name] = array(heads[name](out["text"]))
        elif name == "itc":
            made[name] = contrast(backbone, heads[name], features, out)
            made["logit_scale"] = array(heads[name].logit_scale)
        else:
            made[name] = array(heads[name](out["pooled"]))
    return made


def contrast(backbone, head, features, out):
    """Unit vectors of text, image and, three-way, both."""
    text = {k: features[k] for k in backbone.text_tower.input}
    text = backbone.text_tower(text)[-1][:, 0]
    image = backbone.image_tower(features["images"])
    if head.ways == "three_way":
        image = backbone.fusion.project_image(image)
    made = {"text": text, "image": image[-1][:, 0]}
    if head.ways == "three_way":
        made["fused"] = out["pooled"]
    return np.stack([array(v) for v in head(made).values()])


def differences(ours, others):
    """Largest difference of each output, padding of the text left out."""
    kept = peer.inputs(SIZE)[0]["padding_mask"] == 1
    assert set(others) == set(ours)
    made = {}
    for name, other in others.items():
        a, b = np.asarray(ours[name]), np.asarray(other)
        assert a.shape == b.shape, (name, a.shape, b.shape)
        if name in ("text", "mlm"):
            a, b = a[kept], b[kept]
        made[name] = float(np.abs(a - b).max())
    return made


def preset_parts(folder):
    """Backbone and heads of a preset folder."""
    from keras_bridgetower.convert.export import parts_of_preset

    parts = parts_of_preset(folder)
    assert isinstance(parts.backbone, kbt.BridgeTowerBackbone)
    return parts
