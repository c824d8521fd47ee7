"""Rules of fusion, managers and heads. Those of encoders are in `encoders`."""

import numpy as np

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import attention
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same
from keras_bridgetower.models.heads import LOGIT_SCALE_LIMITS

# Patterns of tensors that the model does not use. A preset keeps them in
# `extra.safetensors`, and export writes them again.
UNREAD = (
    # The text encoder's own pooler.
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
    # The scale of contrastive training, in files without its heads.
    r"temperature|logit_scale",
    # A temperature of managers, of a shape that the authors' code never reads.
    r"cross_modal_(text|image)_manager_tower\.\d+\.manager_layer\."
    r"softmax_temperature_cross",
)
# Norms of states that no tap reads, if each tap has a norm of its own.
UNTAPPED = r"vit_model\.visual\.(ln_post|ln_separate\.\d+)\.(weight|bias)"


def _load_types(tensors, shapes):
    (rows,) = tensors
    # Pre-trained models have the type of one image. It is copied to the second.
    return [np.concatenate([rows, rows[1:2]])[: shapes[0][0]]]


# Files of models with one image have two rows, those of NLVR2 three.
TWO_TYPES = layouts.Layout(_load_types, lambda values: [values[0][:2]])
THREE_TYPES = layouts.Layout(_load_types, lambda values: [values[0]])


def _load_temperature(tensors, shapes):
    if not 0 < float(tensors[0]) < np.inf:
        raise ValueError(f"A temperature must be positive, not {tensors[0]}.")
    scale = -np.log(np.float32(tensors[0]))
    return [np.clip(scale, *LOGIT_SCALE_LIMITS).astype("float32").reshape(())]


# The authors divide by a temperature, transformers multiplies by exp(scale).
TEMPERATURE = layouts.Layout(
    _load_temperature, lambda values: [np.exp(-np.float32(values[0]))]
)


def fusion(a):
    """Return the rules of the fusion of an `Architecture`, for both sources."""
    types = TWO_TYPES if a.type_rows == 2 else THREE_TYPES
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
        if not a.managed and a.bridge is not None:
            rules += norm(f"{path}entry", f"{key}layernorm")
            for layer in range(1, a.num_layers):
                rules += _bridge(
                    a.bridge,
                    f"{path}bridge_{layer}",
                    f"{key}link_tower.{layer - 1}",
                )
    return rules + _managers(a) if a.managed else rules


# Variables and tensors of the bridges in both sources.
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


# A tensor of every checkpoint with managers, which only the authors' files
# have; its second axis counts states.
SCORES = "cross_modal_text_manager_tower.0.manager_layer.layer_scores"


def _managers(a):
    """Return the rules of the managers and the layer embeddings."""
    rules = []
    for side, blocks in (("text", a.text_layers), ("image", a.image_layers)):
        # The table has a row for each block, the model one for each state.
        rules += same(
            f"fusion/type_embedding_{side}_layers",
            f"layer_embeddings_{side}.weight",
            layouts.without_first(blocks - a.managed),
        )
        for layer in range(a.num_layers):
            path = f"fusion/{side}_manager_{layer}"
            key = f"cross_modal_{side}_manager_tower.{layer}.manager_layer"
            rules += same(
                f"{path}/temperature", f"{key}.softmax_temperature", _NUMBER
            )
            for i in range(a.managed):
                rules += norm(f"{path}/norm_{i}", f"{key}.LayerNorm.{i}")
            if layer == 0:
                rules += same(f"{path}/scores", f"{key}.layer_scores", _SCORES)
                continue
            rules += norm(f"{path}/own_norm", f"{key}.LayerNorm.{a.managed}")
            rules += _MANAGERS[a.bridge](path, key)
    return rules


def _static_manager(path, key):
    variables = f"{path}/scores", f"{path}/own_score"
    return [Rule(variables, (f"{key}.layer_scores",), _ALL_SCORES)]


def _adaptive_manager(path, key):
    return [
        *same(f"{path}/own_score", f"{key}.layer_scores_cross", _VECTOR),
        *norm(f"{path}/other_norm", f"{key}.extra_query_LayerNorm"),
        *dense(f"{path}/query", f"{key}.fusion_attention.q_proj"),
        *dense(f"{path}/key", f"{key}.fusion_attention.k_proj"),
        *dense(f"{path}/controller", f"{key}.linear_controller"),
    ]


_MANAGERS = {
    "static_manager": _static_manager,
    "adaptive_manager": _adaptive_manager,
}
# The authors' tensors have axes of samples and tokens, of one row each.
_NUMBER = layouts.reshaped(lambda x: x.reshape(1))
_VECTOR = layouts.reshaped(lambda x: x.reshape(1, 1, 1, -1))
_SCORES = layouts.reshaped(lambda x: x[None, :, None])
# The last row is the score of the layer before.
_ALL_SCORES = layouts.Layout(
    lambda tensors, shapes: [tensors[0][0, :-1, 0], tensors[0][0, -1, 0]],
    lambda values: [np.vstack(values)[None, :, None]],
)


# Parts of heads.
_OUTPUT = [(dense, "/output_dense", "")]
_CLASSIFIER = [
    (dense, "/hidden_dense", ".0"),
    (norm, "/layer_norm", ".1"),
    (dense, "/output_dense", ".3"),
]
# The authors fine-tuned transformers' class of RoBERTa.
_TEXT = [
    (dense, "/hidden_dense", ".dense"),
    (dense, "/output_dense", ".out_proj"),
]


def _head(path, key, parts):
    return lambda values: joined(path, key, *parts)


def _itc(scale, layout, start=""):
    def rules(values):
        kinds = {"text": "text", "image": "image"}
        if values["ways"] == "three_way":
            kinds["fused"] = "cross_modal"
        table = same("itc_head/logit_scale", scale, layout)
        for kind, name in kinds.items():
            table += dense(
                f"itc_head/{kind}_dense", f"{start}itc_{name}_head.fc"
            )
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


_SHARED_HEADS = {"itm": _head("itm_head", "itm_score.fc", _OUTPUT), "mlm": _mlm}
# Functions of a head's constructor values that return its rules.
TRANSFORMERS_HEADS = {
    **_SHARED_HEADS,
    "itc": _itc("logit_scale", layouts.SCALAR),
}
LIGHTNING_HEADS = {
    **_SHARED_HEADS,
    "itc": _itc("temperature", TEMPERATURE),
    "rank": _head("rank_head", "rank_output", _OUTPUT),
    "vqa": _head("vqa_head", "vqa_classifier", _CLASSIFIER),
    "entailment": _head("entailment_head", "snli_classifier", _CLASSIFIER),
    "nlvr2": _head("nlvr2_head", "nlvr2_classifier", _CLASSIFIER),
    "image_class": _head("image_class_head", "classifier", _OUTPUT),
    "text_class": _head("text_class_head", "classifier", _TEXT),
    "text_number": _head("text_number_head", "classifier", _TEXT),
}
# Files of ManagerTower.
MANAGER_HEADS = {
    **LIGHTNING_HEADS,
    "itc": _itc("temperature", TEMPERATURE, "cross_modal_"),
}


def heads(table, values):
    """Return the rules of several heads.

    Args:
        table: `TRANSFORMERS_HEADS`, `LIGHTNING_HEADS` or `MANAGER_HEADS`.
        values: dict from names of heads to their constructor values.
    """
    return [rule for name in values for rule in table[name](values[name])]
