"""The predicted memory is that of real tensors."""

import keras
import pytest

from keras_bridgetower.training.recipes import paper

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="the tool runs on torch"
)


def tiny(name="vqa_base"):
    return paper.get(name).replace(size="tiny", image_size=32)


@pytest.mark.parametrize(
    "name",
    ["vqa_base", "pretrain_base", "nlvr2_base", "coco_base", "cifar", "glue"],
)
def test_activations_of_shapes_are_those_of_tensors(name):
    import memory

    with keras.device(memory.Meta("meta")):
        shapes = memory.make_task(tiny(name))
        predicted = [memory.kept_by(shapes, 2, 7)]
        shapes.backbone.checkpoint_activations()
        predicted.append(memory.kept_by(shapes, 2, 7))
    real = memory.make_task(tiny(name))
    measured = [memory.kept_by(real, 2, 7, "cpu")]
    real.backbone.checkpoint_activations()
    measured.append(memory.kept_by(real, 2, 7, "cpu"))
    # Kernels of the CPU keep a little more or less than the shapes say.
    assert predicted == pytest.approx(measured, rel=0.1)
    assert predicted[1] < predicted[0]


def test_weights_by_kind():
    import memory

    with keras.device(memory.Meta("meta")):
        task = memory.make_task(tiny())
    whole = memory.weights_of(task, 4, "data_parallel")
    floats = [w for w in task.weights if "int" not in w.dtype]
    assert whole["gradients"] == 4 * sum(w.value.numel() for w in floats)
    assert whole["optimizer"] == 2 * whole["gradients"]
    split = memory.weights_of(task, 4, "fsdp")
    assert split["optimizer"] < whole["optimizer"] / 3
