"""Rules of fusion and heads.

A `Rule` connects paths of variables, names of tensors, and the layout that
converts one to the other. The same rules are used to load and to export. Each
function returns the rules of a part; `encoders.py` has those of the encoders.
"""

from typing import NamedTuple

from keras_bridgetower.convert.rules import layouts


class Rule(NamedTuple):
    """Variables and tensors that hold the same weights.

    Args:
        variables: tuple of str, paths of variables.
        keys: tuple of str, names of tensors.
        layout: `Layout` that converts between them.
    """

    variables: tuple
    keys: tuple
    layout: layouts.Layout


# Patterns of tensors that the model does not use. A preset keeps them in
# `extra.safetensors`, and export writes them again.
UNREAD = (
    # The text encoder's own pooler; the fusion pools.
    r"text_(model|transformer)\.pooler\.dense\.(weight|bias)",
    # A constant range of numbers.
    r".*\.position_ids",
    # The rest of CLIP's text side and its projection; the second names are
    # those of older revisions of the published base size.
    r"vit_model\.(?!visual\.).*|vit_model\.visual\.proj",
    r"vision_model\.(token_embedding\.weight|positional_embedding|"
    r"ln_final\.(weight|bias)|visual\.proj)",
    # Norms of each layer, which transformers creates and does not call.
    r"vision_model\.visual\.ln_separate\.\d+\.(weight|bias)",
    # The scale of contrastive training, without its heads.
    r"temperature|logit_scale",
)
# Norms of states that no tap reads, if each tap has a norm of its own.
UNTAPPED = r"vit_model\.visual\.(ln_post|ln_separate\.\d+)\.(weight|bias)"
# Tensors of uni-modal models that no encoder of this library has: pooler,
# heads of other tasks, CLIP's text side and projections.
UNIMODAL_UNREAD = (
    r"(.*\.)?position_ids",
    r"(bert|roberta)?\.?pooler\..*",
    r"(lm_head|cls|(distillation_|cls_)?classifier)\..*",
    r"text_model\..*|(text|visual)_projection\.weight|logit_scale|"
    r"text_projection|positional_embedding|token_embedding\.weight|"
    r"ln_final\..*|transformer\.resblocks\..*|visual\.proj|"
    r"input_resolution|context_length|vocab_size",
)


def same(path, key, layout=layouts.SAME):
    """Return the rule of one variable and one tensor, in a list."""
    return [Rule((path,), (key,), layout)]


def norm(path, key):
    """Return the rules of a layer normalization."""
    return same(f"{path}/gamma", f"{key}.weight") + same(
        f"{path}/beta", f"{key}.bias"
    )


def dense(path, key, layout=layouts.DENSE):
    """Return the rules of a dense layer with a bias."""
    return [
        *same(f"{path}/kernel", f"{key}.weight", layout),
        *same(f"{path}/bias", f"{key}.bias", layouts.BIAS),
    ]


def joined(path, key, *parts):
    """Return the rules of the parts of a layer.

    Args:
        path: str, the start of the paths of all variables.
        key: str, the start of the names of all tensors.
        *parts: tuples of a function such as `dense` and the ends of the path
            and the key that it gets.
    """
    return [
        rule
        for make, path_end, key_end in parts
        for rule in make(f"{path}{path_end}", f"{key}{key_end}")
    ]


def attention(
    path,
    key,
    parts=("self.query", "self.key", "self.value"),
    output="output.dense",
):
    """Return the rules of attention with separate query, key and value."""
    rules = dense(
        f"{path}/attention_output", f"{key}.{output}", layouts.HEADS_DENSE
    )
    for name, part in zip(("query", "key", "value"), parts, strict=True):
        rules += dense(f"{path}/{name}", f"{key}.{part}")
    return rules


def fusion(architecture):
    """Return the rules of the fusion, whose names are the same in both sources.

    Args:
        architecture: an `Architecture`.

    Returns:
        list of `Rule`.
    """
    a = architecture
    types = layouts.TWO_TYPES if a.type_rows == 2 else layouts.THREE_TYPES
    rules = same("fusion/type_embedding", "token_type_embeddings.weight", types)
    for side in ("text", "image"):
        path, key = f"fusion/{side}_", f"cross_modal_{side}_"
        rules += dense(f"{path}pooler", f"{key}pooler.dense")
        if a.projections == "shared":
            rules += dense(f"{path}projection_0", f"{key}transform")
        for layer in range(a.num_layers):
            rules += _cross_modal_layer(side, layer)
            if a.projections != "shared":
                rules += dense(
                    f"{path}projection_{layer}", f"{key}transform.{layer}"
                )
        if a.bridge is not None:
            rules += norm(f"{path}entry", f"{key}layernorm")
            for layer in range(1, a.num_layers):
                rules += _bridge(
                    a.bridge,
                    f"{path}bridge_{layer}",
                    f"{key}link_tower.{layer - 1}",
                )
    return rules


# Variables and tensors of the bridges that both sources have.
BRIDGE_SCALARS = {
    "add": (),
    "scaled_add": (("scale", "scaled_factor"),),
    "interpolate_scalar": (("beta", "beta"),),
}


def _bridge(bridge, path, key):
    rules = norm(f"{path}/layer_norm", f"{key}.LayerNorm")
    for name, tensor in BRIDGE_SCALARS[bridge]:
        rules += same(f"{path}/{name}", f"{key}.{tensor}", layouts.SCALAR)
    return rules


def _cross_modal_layer(side, layer):
    own = f"layer_{layer}_{side}"
    return joined(
        f"fusion/layer_{layer}/{own}/",
        f"cross_modal_{side}_layers.{layer}.",
        (attention, f"{own}_self_attention", "attention"),
        (norm, "self_attention_norm", "attention.output.LayerNorm"),
        (attention, f"{own}_cross_attention", "crossattention"),
        (norm, "cross_attention_norm", "crossattention.output.LayerNorm"),
        (dense, "intermediate_dense", "intermediate.dense"),
        (dense, "output_dense", "output.dense"),
        (norm, "feedforward_norm", "output.LayerNorm"),
    )


def _classifier(path, key):
    return lambda values: joined(
        path,
        key,
        (dense, "/hidden_dense", ".0"),
        (norm, "/layer_norm", ".1"),
        (dense, "/output_dense", ".3"),
    )


def _text(path):
    # The authors fine-tuned transformers' class of RoBERTa.
    return lambda values: joined(
        path,
        "classifier",
        (dense, "/hidden_dense", ".dense"),
        (dense, "/output_dense", ".out_proj"),
    )


def _output(path, key):
    return lambda values: dense(f"{path}/output_dense", key)


def _itc(scale, layout):
    def rules(values):
        kinds = {"text": "text", "image": "image"}
        if values["ways"] == "three_way":
            kinds["fused"] = "cross_modal"
        table = same("itc_head/logit_scale", scale, layout)
        for kind, name in kinds.items():
            table += dense(f"itc_head/{kind}_dense", f"itc_{name}_head.fc")
        return table

    return rules


def _mlm(values):
    return [
        *joined(
            "mlm_head",
            "mlm_score",
            (dense, "/transform", ".transform.dense"),
            (norm, "/layer_norm", ".transform.LayerNorm"),
        ),
        *same(
            "mlm_head/decoder/kernel", "mlm_score.decoder.weight", layouts.DENSE
        ),
        *same("mlm_head/decoder/bias", "mlm_score.bias", layouts.BIAS),
    ]


_SHARED_HEADS = {"itm": _output("itm_head", "itm_score.fc"), "mlm": _mlm}
# Functions of a head's constructor values that return its rules.
TRANSFORMERS_HEADS = {
    **_SHARED_HEADS,
    "itc": _itc("logit_scale", layouts.SCALAR),
}
LIGHTNING_HEADS = {
    **_SHARED_HEADS,
    "itc": _itc("temperature", layouts.TEMPERATURE),
    "rank": _output("rank_head", "rank_output"),
    "vqa": _classifier("vqa_head", "vqa_classifier"),
    "entailment": _classifier("entailment_head", "snli_classifier"),
    "nlvr2": _classifier("nlvr2_head", "nlvr2_classifier"),
    "image_class": _output("image_class_head", "classifier"),
    "text_class": _text("text_class_head"),
    "text_number": _text("text_number_head"),
}


def heads(table, values):
    """Return the rules of several heads.

    Args:
        table: `TRANSFORMERS_HEADS` or `LIGHTNING_HEADS`.
        values: dict from names of heads to their constructor values.

    Returns:
        list of `Rule`.
    """
    return [rule for name in values for rule in table[name](values[name])]
