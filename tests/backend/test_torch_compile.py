"""The graphs of `torch.compile`: a break costs the speed of compiling."""

import builders
import keras
import pytest

import keras_bridgetower as kbt
from keras_bridgetower.training import AdamW

pytestmark = builders.FASTEST


def tensors(arrays):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)


def test_predict_is_one_graph():
    """With KerasHub's attention and ours."""
    import torch

    task = builders.retrieval(**builders.one_layer_each())
    x = (tensors(builders.features(task.backbone)),)
    with torch.no_grad():
        task.predict_step(x)  # That builds it.
        seen = torch._dynamo.explain(task.predict_step)(x)
    assert (seen.graph_count, seen.break_reasons) == (1, [])


@pytest.mark.slow
# Dynamo reads `grad` of all tensors.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_only_the_backward_pass_breaks_a_training_step():
    """Keras calls `loss.backward()` in it."""
    import torch

    task = kbt.BridgeTowerVQA(builders.shallow(), builders.preprocessor())
    task.compile(AdamW(1e-3))
    task.train_on_batch(*builders.raw())  # That creates all variables.
    batch = tensors(task.preprocessor(*builders.raw())[:2])
    seen = torch._dynamo.explain(task.train_step)(batch)
    (reason,) = seen.break_reasons
    assert seen.graph_count == 2
    assert "backward()" in reason.reason
