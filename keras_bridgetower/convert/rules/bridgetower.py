"""Rules of fusion and heads.

A `Rule` connects paths of variables, names of tensors, and the layout that
converts one to the other. The same rules are used to load and to export. Each
function returns the rules of a part; `encoders.py` has those of the encoders.
"""

from typing import NamedTuple

from keras_bridgetower.convert.rules import layouts
from keras_bridgetower.convert.rules.layouts import BIAS
from keras_bridgetower.convert.rules.layouts import DENSE
from keras_bridgetower.convert.rules.layouts import HEADS_DENSE
from keras_bridgetower.convert.rules.layouts import SAME
from keras_bridgetower.convert.rules.layouts import SCALAR


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


class Unread(NamedTuple):
    """Tensors of a checkpoint that the model does not use.

    Args:
        pattern: str, regular expression for their names.
        reason: str.
    """

    pattern: str
    reason: str


# A preset keeps them in `extra.safetensors`, and export writes them again.
UNREAD = (
    Unread(
        r"text_(model|transformer)\.pooler\.dense\.(weight|bias)",
        "the text encoder's own pooler; the fusion pools",
    ),
    Unread(r".*\.position_ids", "a constant range of numbers"),
    Unread(
        r"vit_model\.(?!visual\.).*|vit_model\.visual\.proj",
        "the rest of CLIP's text side and its projection",
    ),
    Unread(
        r"vision_model\.(token_embedding\.weight|positional_embedding|"
        r"ln_final\.(weight|bias)|visual\.proj)",
        "the same, in older revisions of the published base size",
    ),
    Unread(
        r"vision_model\.visual\.ln_separate\.\d+\.(weight|bias)",
        "norms per layer, which transformers creates and does not call",
    ),
    Unread(
        r"temperature|logit_scale",
        "the scale of contrastive training, without its heads",
    ),
)
# Used in addition if each tap has a norm of its own.
UNTAPPED = Unread(
    r"vit_model\.visual\.(ln_post|ln_separate\.\d+)\.(weight|bias)",
    "norms of states that no tap reads",
)


# Tensors of uni-modal models that no encoder of this library has.
UNIMODAL_UNREAD = (
    Unread(r"(.*\.)?position_ids", "a constant range of numbers"),
    Unread(r"(bert|roberta)?\.?pooler\..*", "a pooler that nothing reads"),
    Unread(
        r"(lm_head|cls|classifier|distillation_classifier)\..*|"
        r"cls_classifier\..*",
        "a head of another task",
    ),
    Unread(
        r"text_model\..*|(text|visual)_projection\.weight|logit_scale|"
        r"text_projection|positional_embedding|token_embedding\.weight|"
        r"ln_final\..*|transformer\.resblocks\..*|visual\.proj|"
        r"input_resolution|context_length|vocab_size",
        "CLIP's text side and projections",
    ),
)


def norm(path, key):
    """Return the rules of a layer normalization."""
    return [
        Rule((f"{path}/gamma",), (f"{key}.weight",), SAME),
        Rule((f"{path}/beta",), (f"{key}.bias",), SAME),
    ]


def dense(path, key, layout=DENSE):
    """Return the rules of a dense layer with a bias."""
    return [
        Rule((f"{path}/kernel",), (f"{key}.weight",), layout),
        Rule((f"{path}/bias",), (f"{key}.bias",), BIAS),
    ]


def attention(
    path,
    key,
    parts=("self.query", "self.key", "self.value"),
    output="output.dense",
):
    """Return the rules of attention with separate query, key and value."""
    rules = dense(f"{path}/attention_output", f"{key}.{output}", HEADS_DENSE)
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
    types = {2: layouts.TWO_TYPES, 3: layouts.THREE_TYPES}
    rules = [
        Rule(
            ("fusion/type_embedding",),
            ("token_type_embeddings.weight",),
            types[architecture.type_rows],
        )
    ]
    for side in ("text", "image"):
        rules += _projections(architecture, side)
        rules += dense(
            f"fusion/{side}_pooler", f"cross_modal_{side}_pooler.dense"
        )
        if architecture.bridge is not None:
            rules += norm(
                f"fusion/{side}_entry", f"cross_modal_{side}_layernorm"
            )
            for layer in range(1, architecture.num_layers):
                rules += _bridge(architecture.bridge, side, layer)
        for layer in range(architecture.num_layers):
            rules += _cross_modal_layer(side, layer)
    return rules


def _projections(architecture, side):
    key = f"cross_modal_{side}_transform"
    if architecture.projections == "shared":
        return dense(f"fusion/{side}_projection_0", key)
    return [
        rule
        for layer in range(architecture.num_layers)
        for rule in dense(f"fusion/{side}_projection_{layer}", f"{key}.{layer}")
    ]


# Variables and tensors of the bridges that both sources have.
BRIDGE_SCALARS = {
    "add": (),
    "scaled_add": (("scale", "scaled_factor"),),
    "interpolate_scalar": (("beta", "beta"),),
}


def _bridge(bridge, side, layer):
    path = f"fusion/{side}_bridge_{layer}"
    key = f"cross_modal_{side}_link_tower.{layer - 1}"
    return norm(f"{path}/layer_norm", f"{key}.LayerNorm") + [
        Rule((f"{path}/{name}",), (f"{key}.{tensor}",), SCALAR)
        for name, tensor in BRIDGE_SCALARS[bridge]
    ]


def _cross_modal_layer(side, layer):
    path = f"fusion/layer_{layer}/layer_{layer}_{side}"
    key = f"cross_modal_{side}_layers.{layer}"
    rules = []
    for kind, name in (("self", "attention"), ("cross", "crossattention")):
        own = f"{path}/layer_{layer}_{side}_{kind}_attention"
        rules += attention(own, f"{key}.{name}")
        rules += norm(
            f"{path}/{kind}_attention_norm", f"{key}.{name}.output.LayerNorm"
        )
    rules += dense(f"{path}/intermediate_dense", f"{key}.intermediate.dense")
    rules += dense(f"{path}/output_dense", f"{key}.output.dense")
    rules += norm(f"{path}/feedforward_norm", f"{key}.output.LayerNorm")
    return rules


def _classifier(path, key):
    return (
        dense(f"{path}/hidden_dense", f"{key}.0")
        + norm(f"{path}/layer_norm", f"{key}.1")
        + dense(f"{path}/output_dense", f"{key}.3")
    )


def _text(path):
    # The authors fine-tuned transformers' class of RoBERTa.
    return dense(f"{path}/hidden_dense", "classifier.dense") + dense(
        f"{path}/output_dense", "classifier.out_proj"
    )


def _itc(scale):
    def rules(values):
        kinds = [("text", "text"), ("image", "image")]
        if values["ways"] == "three_way":
            kinds.append(("fused", "cross_modal"))
        table = [Rule(("itc_head/logit_scale",), *scale)]
        for kind, name in kinds:
            table += dense(f"itc_head/{kind}_dense", f"itc_{name}_head.fc")
        return table

    return rules


def _mlm(values):
    return [
        *dense("mlm_head/transform", "mlm_score.transform.dense"),
        *norm("mlm_head/layer_norm", "mlm_score.transform.LayerNorm"),
        Rule(
            ("mlm_head/decoder/kernel",), ("mlm_score.decoder.weight",), DENSE
        ),
        Rule(("mlm_head/decoder/bias",), ("mlm_score.bias",), BIAS),
    ]


_SHARED_HEADS = {
    "itm": lambda values: dense("itm_head/output_dense", "itm_score.fc"),
    "mlm": _mlm,
}
# Functions of a head's constructor values that return its rules.
TRANSFORMERS_HEADS = {
    **_SHARED_HEADS,
    "itc": _itc((("logit_scale",), SCALAR)),
}
LIGHTNING_HEADS = {
    **_SHARED_HEADS,
    "itc": _itc((("temperature",), layouts.TEMPERATURE)),
    "rank": lambda values: dense("rank_head/output_dense", "rank_output"),
    "vqa": lambda values: _classifier("vqa_head", "vqa_classifier"),
    "entailment": lambda values: _classifier(
        "entailment_head", "snli_classifier"
    ),
    "nlvr2": lambda values: _classifier("nlvr2_head", "nlvr2_classifier"),
    "image_class": lambda values: dense(
        "image_class_head/output_dense", "classifier"
    ),
    "text_class": lambda values: _text("text_class_head"),
    "text_number": lambda values: _text("text_number_head"),
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
