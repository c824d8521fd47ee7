"""Training steps on PyTorch's meta device, whose tensors have no values.

There reading a value is an error: on a GPU it would wait for the device.
"""

import keras
import pytest
from builders import FASTEST
from builders import long_but

from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.training import planning
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes.task_of_recipe import on_new_encoders

pytestmark = FASTEST
ROWS, ID = 4, ("int32", ())
# A recipe of each task, and what changes the step.
NAMES = ("vqa_base", "pretrain_base", "nlvr2_base", "snli_ve_base", "coco_base")
NAMES += ("flickr30k_ranking_base", "cifar", "glue")
OPTIONS = {
    "plain": {},
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "accumulation": {"accumulation": 2, "batch_size": 2 * ROWS},
    "recomputation": {},
    "lora": {},
}


def labels(task, rows, tokens):
    """Labels of the shapes and dtypes that a task's loss takes."""
    import torch

    def ids(*shape):
        return torch.zeros((rows, *shape), dtype=torch.int32, device="meta")

    if hasattr(task, "objectives"):
        made = {"mlm": ids(tokens - 2), "itm": ids(), "itc": ids()}
        return {name: made[name] for name in task.objectives}
    classes = task.output.shape[-1]
    return ids(classes).float() if task.task_name == "vqa" else ids()


def draw(objective, x):
    """Add what the preprocessor of retrieval draws; return the labels."""
    for name, (dtype, shape) in {**objective.drawn, "image_id": ID}.items():
        x[name] = keras.ops.ones((ROWS, *shape), dtype)
    dtype, shape = objective.labels
    targets = objective.targets(keras.ops.zeros((ROWS, *shape), dtype), x)
    return pair_objectives.only_or_all(targets)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", long_but(NAMES, "vqa_base"))
def test_a_step_reads_no_value(name, option):
    given = {"batch_size": ROWS, **OPTIONS[option]}
    recipe = paper.get(name).replace(size="tiny", image_size=32, **given)
    with planning.meta_device():
        task = on_new_encoders(recipe)
        if option == "recomputation":
            task.backbone.checkpoint_activations()
        if option == "lora":
            task.enable_lora(2)
        task.compile(recipe.optimizer(100))
        x = planning.features(task, ROWS, 7)
        if recipe.task == "Retrieval":
            y = draw(task.pair_objective, x)
        else:
            y = labels(task, ROWS, 7)
        for _ in range(recipe.accumulation):
            logs = task.train_step((x, y))
        with pytest.raises(RuntimeError, match="meta"):
            float(logs["loss"])
    assert all(w.value.device.type == "meta" for w in task.weights)
    assert keras.tree.flatten(logs)
