"""Recipes: their values, differences, optimizers and tasks."""

import functools

import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import retrieval
from builders import shallow
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import WarmupPolynomial
from keras_bridgetower.training.optim.adamw import rows
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe
from keras_bridgetower.training.recipes.paper import RECIPES

pytestmark = LONG_ELSEWHERE

# Their scripts mirror pictures with any text.
MIRRORED = {
    *("snli_ve_base", "nlvr2_base", "flickr30k_ranking_base"),
    *("flickr30k_base", "coco_base", "manager_snli_ve", "manager_nlvr2"),
    "manager_flickr30k",
}


@FASTEST
def test_differences_from_the_scripts_are_printed():
    for name, recipe in RECIPES.items():
        differences = {}
        if name in MIRRORED:
            official = f"{recipe.transform}_official"
            differences = {"transform": (recipe.transform, official)}
            assert f"[paper: {official}]" in str(recipe)
        assert recipe.differences() == differences


# Rows of a GPU, GPUs, micro-batches, and updates of all epochs over 100,003
# samples: by hand from the scripts.
BATCHES = {
    "pretrain_base": (32, 64, 2, 100_000),
    "pretrain_large": (16, 64, 4, 100_000),
    "manager_pretrain": (8, 64, 8, 100_000),
    "snli_ve_base": (8, 8, 1, 5 * 1563),
    "nlvr2_base": (8, 8, 1, 10 * 1563),
    "flickr30k_base": (8, 8, 8, 20 * 1563 // 8),
    "coco_base": (16, 8, 2, 30 * 782 // 2),
}


@FASTEST
def test_batches_and_updates_equal_the_scripts():
    for name, (of_gpu, devices, accumulation, updates) in BATCHES.items():
        recipe = RECIPES[name]
        assert recipe.micro_batch_size == of_gpu * devices, name
        requested = recipe.optimizer(100).gradient_accumulation_steps
        assert requested == (accumulation if accumulation > 1 else None), name
        assert recipe.total_steps(100_003) == updates, name


def test_the_optimizer_of_a_run():
    recipe = RECIPES["vqa_base"]
    # 443,757 questions: 867 batches of 512 an epoch, the last one short.
    total = recipe.total_steps(443_757)
    assert total == 8670
    # In the script it is 3,467 batches of 128, and four an update.
    assert recipe.replace(accumulation=4).total_steps(443_757) == 8667
    optimizer = recipe.optimizer(total, global_clipnorm=1.0)
    optimizer.build(vqa().trainable_variables)
    schedule = optimizer._learning_rate
    assert schedule.warmup_steps == 520
    assert float(schedule(520)) == pytest.approx(1e-5)
    assert set(optimizer._factors) == {1.0, 5.0, 50.0}
    assert set(optimizer._decays) == {0.0, 0.05}


@FASTEST
def test_other_accumulation_than_the_recipe_is_rejected():
    recipe = RECIPES["vqa_base"].replace(accumulation=2)
    with pytest.raises(ValueError, match=r"recipe.replace\(accumulation=4\)"):
        recipe.optimizer(100, gradient_accumulation_steps=4)


@functools.cache
def task_of(name, objective):
    cls = getattr(kbt, f"BridgeTower{name}")
    return {
        "Retrieval": lambda: retrieval(
            objective, 8 if objective == "hard_negatives" else None
        ),
        "VQA": vqa,
        "Pretraining": lambda: cls(shallow(), objectives=("mlm", "itm")),
        "ImageClassifier": lambda: cls(shallow(), labels=["cat", "dog"]),
        "TextClassifier": lambda: cls(shallow(), labels=["no", "yes"]),
    }.get(name, lambda: cls(shallow()))()


def test_every_recipe_has_an_optimizer_for_its_task():
    for name, recipe in RECIPES.items():
        task = task_of(recipe.task, recipe.objective)
        optimizer = recipe.optimizer(100)
        optimizer.build(task.trainable_variables)
        assert len(optimizer._factors) == len(task.trainable_variables), name
        assert 1.0 in optimizer._factors, name
        if recipe.task not in ("ImageClassifier", "TextClassifier"):
            assert recipe.fusion_factor in optimizer._factors, name
            # The rest of a frozen fusion has a row too.
            task.backbone.fusion.trainable = False
            recipe.optimizer(100).build(task.trainable_variables)
            task.backbone.fusion.trainable = True


@FASTEST
def test_a_preset_keeps_the_width_of_its_head():
    recipe = RECIPES["coco_base"].tiny()
    preset = "bridgetower_tiny_easy_pretrain"
    task = task_of_recipe.from_preset(recipe, preset, None)
    assert task.projection_dim == 64


def built(*rows):
    return lambda: AdamW(rows=rows).build(
        task_of("VQA", None).trainable_variables
    )


def replaced(**changes):
    return lambda: RECIPES["vqa_base"].replace(**changes)


REJECTED = {
    "`batch_size`": replaced(batch_size=0),
    "`steps`": replaced(steps=0),
    "`epochs`": replaced(epochs=None),
    "`accumulation`": replaced(accumulation=3),
    "`size`": replaced(size="huge"),
    "`field` must be one of": replaced(weight_decy=0.1),
    "`recipe` must be one of": lambda: paper.get("vqa_bas"),
    "`samples` must be": lambda: RECIPES["vqa_base"].total_steps(500),
    "type_embedding: 2 rows": built((".*", 1), ("fusion", 2)),
    "embeddings: no row": built(("fusion", 2)),
    "'heads/': no variable": built(*rows(), ("heads/", 2)),
    "`decay` must be": lambda: AdamW(decay="none"),
    "`warmup`": lambda: WarmupPolynomial(1, 200, 200),
}


@pytest.mark.parametrize("message", REJECTED)
def test_wrong_arguments_are_rejected(message):
    with pytest.raises(ValueError, match=message):
        REJECTED[message]()
