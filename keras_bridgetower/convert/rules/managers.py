"""Rules of managers, whose tensors only the authors' checkpoints have."""

import numpy as np

from keras_bridgetower.encoders.layouts import Layout
from keras_bridgetower.encoders.layouts import reshaped
from keras_bridgetower.encoders.layouts import without_first
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same

# A tensor of every checkpoint with managers; its second axis counts states.
SCORES = "cross_modal_text_manager_tower.0.manager_layer.layer_scores"
# A temperature of a shape that the authors' code never reads.
UNREAD = (
    r"cross_modal_(text|image)_manager_tower\.\d+\.manager_layer\."
    r"softmax_temperature_cross"
)


def kind(shapes):
    """Return the value of `bridge` that a checkpoint with managers needs.

    Args:
        shapes: dict from names of tensors to shapes.
    """
    adaptive = "cross_modal_text_manager_tower.1.manager_layer.linear_"
    found = any(key.startswith(adaptive) for key in shapes)
    return "adaptive_manager" if found else "static_manager"


def managers(a):
    """Return the rules of the managers and the layer embeddings.

    Args:
        a: an `Architecture`.

    Returns:
        list of `Rule`.
    """
    rules = []
    for side, blocks in (("text", a.text_layers), ("image", a.image_layers)):
        # The table has a row for each block, the model one for each state.
        rules += same(
            f"fusion/type_embedding_{side}_layers",
            f"layer_embeddings_{side}.weight",
            without_first(blocks - a.managed),
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
            rules += _RULES[a.bridge](path, key)
    return rules


def _static(path, key):
    variables = f"{path}/scores", f"{path}/own_score"
    return [Rule(variables, (f"{key}.layer_scores",), _ALL_SCORES)]


def _adaptive(path, key):
    return [
        *same(f"{path}/own_score", f"{key}.layer_scores_cross", _VECTOR),
        *norm(f"{path}/other_norm", f"{key}.extra_query_LayerNorm"),
        *dense(f"{path}/query", f"{key}.fusion_attention.q_proj"),
        *dense(f"{path}/key", f"{key}.fusion_attention.k_proj"),
        *dense(f"{path}/controller", f"{key}.linear_controller"),
    ]


_RULES = {"static_manager": _static, "adaptive_manager": _adaptive}
# The authors' tensors have axes of samples and tokens, of one row each.
_NUMBER = reshaped(lambda x: x.reshape(1))
_VECTOR = reshaped(lambda x: x.reshape(1, 1, 1, -1))
_SCORES = reshaped(lambda x: x[None, :, None])
# The last row is the score of the layer before.
_ALL_SCORES = Layout(
    lambda tensors, shapes: [tensors[0][0, :-1, 0], tensors[0][0, -1, 0]],
    lambda values: [np.vstack(values)[None, :, None]],
)
