"""The graphs of `torch.compile`: a break costs the speed of compiling."""

import keras
import pytest
from builders import FASTEST
from builders import clip
from builders import features
from builders import one_layer_each
from builders import preprocessor
from builders import raw
from builders import retrieval
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.models.attention import BridgeTowerAttention
from keras_bridgetower.training import AdamW

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
def test_arrays_are_compiled_once():
    """The first batch names layers; arrays of NumPy part no graph."""
    from torch._dynamo.utils import counters

    task, counted, found = kbt.BridgeTowerVQA(shallow(), preprocessor()), [], []
    task.compile(jit_compile=True)
    x = raw()[0]
    counters.clear()
    for _ in range(3):
        found.append(task.predict_on_batch(x))
        counted.append(counters["stats"]["unique_graphs"])
    assert counted == [0, 1, 1]
    task.compile(jit_compile=False)
    expected = task.predict_on_batch(x)
    assert all(abs(x - expected).max() < 1e-5 for x in found)


@pytest.mark.slow
def test_predict_is_one_graph():
    task = retrieval(**one_layer_each())
    check_whole(task.predict_step, (tensors(features(task.backbone)),))


@pytest.mark.slow
# Dynamo reads `grad` of all tensors.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_only_the_backward_pass_breaks_a_training_step():
    """Keras calls `loss.backward()` in it."""
    import torch

    task = kbt.BridgeTowerVQA(shallow(), preprocessor())
    task.compile(AdamW(1e-3))
    task.train_on_batch(*raw())  # That creates all variables.
    batch = tensors(task.preprocessor(*raw())[:2])
    seen = torch._dynamo.explain(task.train_step)(batch)
    (reason,) = seen.break_reasons
    assert seen.graph_count == 2
    assert "backward()" in reason.reason
