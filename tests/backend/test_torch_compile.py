"""The graphs of `torch.compile`: a break costs the speed of compiling."""

import keras
import pytest
from builders import FASTEST
from builders import clip
from builders import features
from builders import one_layer_each
from builders import retrieval

import keras_bridgetower as kbt
from keras_bridgetower.models.attention import BridgeTowerAttention

pytestmark = FASTEST


def tensors(arrays):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)


def check_whole(function, x):
    import torch

    with torch.no_grad():
        function(x)  # That builds it.
        seen = torch._dynamo.explain(function)(x)
    assert (seen.graph_count, seen.break_reasons) == (1, [])


def test_attention_parts_no_graph():
    """KerasHub's and ours."""
    tower = kbt.Tower(clip(layers=1), (-1,))
    attention = BridgeTowerAttention(num_heads=2, key_dim=8)

    def run(images):
        (x,) = tower(images, training=False)
        return attention(x, x)

    check_whole(run, tensors(features(batch=1)["images"]))


@pytest.mark.slow
def test_predict_is_one_graph():
    task = retrieval(**one_layer_each())
    check_whole(task.predict_step, (tensors(features(task.backbone)),))
