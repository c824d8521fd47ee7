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
def test_activations_predicted_from_shapes_equal_measured_ones(name):
    import predict_memory

    with keras.device(predict_memory.Meta("meta")):
        shapes = predict_memory.make_task(tiny(name))
        predicted = [predict_memory.kept_by(shapes, 2, 7)]
        shapes.backbone.checkpoint_activations()
        predicted.append(predict_memory.kept_by(shapes, 2, 7))
    real = predict_memory.make_task(tiny(name))
    measured = [predict_memory.kept_by(real, 2, 7, "cpu")]
    real.backbone.checkpoint_activations()
    measured.append(predict_memory.kept_by(real, 2, 7, "cpu"))
    # Kernels of the CPU keep a little more or less than the shapes say.
    assert predicted == pytest.approx(measured, rel=0.1)
    assert predicted[1] < predicted[0]


def test_weights_by_kind():
    import predict_memory

    with keras.device(predict_memory.Meta("meta")):
        task = predict_memory.make_task(tiny())
    whole = predict_memory.weights_of(task, 4, "data_parallel")
    floats = [w for w in task.weights if "int" not in w.dtype]
    assert whole["gradients"] == 4 * sum(w.value.numel() for w in floats)
    assert whole["optimizer"] == 2 * whole["gradients"]
    split = predict_memory.weights_of(task, 4, "fsdp")
    assert split["optimizer"] < whole["optimizer"] / 3
