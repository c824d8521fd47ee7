"""Recipes: their values, differences and optimizers."""

import dataclasses

import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import retrieval
from builders import shallow
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes.paper import RECIPES

pytestmark = LONG_ELSEWHERE

PATCH = {"base": 16, "large": 14}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built(name):
    recipe = RECIPES[name]
    assert recipe.name == name and recipe.source
    assert hasattr(kbt, f"BridgeTower{recipe.task}")
    assert recipe.image_size % PATCH[recipe.size] == 0
    # Either defines the length of the run.
    assert (recipe.epochs is None) != (recipe.steps is None)
    assert name in str(recipe)


# Their scripts mirror pictures with any text.
MIRRORED = {
    *("snli_ve_base", "nlvr2_base", "flickr30k_ranking_base"),
    *("flickr30k_base", "coco_base"),
}


@FASTEST
@pytest.mark.parametrize("name", RECIPES)
def test_differences_from_the_scripts_are_printed(name):
    recipe, differences = RECIPES[name], {}
    if name in MIRRORED:
        differences = {
            "transform": ("blip_randaug_wc", "blip_randaug_wc_official")
        }
        assert "[paper: blip_randaug_wc_official]" in str(recipe)
    assert recipe.differences() == differences
    as_scripted = recipe.replace(**{k: v for k, (_, v) in differences.items()})
    assert as_scripted.differences() == {}


# Rows of a GPU, GPUs, micro-batches, and updates of all epochs over 100,003
# samples: by hand from the scripts.
SCRIPTS = {
    "pretrain_base": (32, 64, 2, None),
    "pretrain_large": (16, 64, 4, None),
    "snli_ve_base": (8, 8, 1, 5 * 1563),
    "nlvr2_base": (8, 8, 1, 10 * 1563),
    "flickr30k_base": (8, 8, 8, 20 * 1563 // 8),
    "coco_base": (16, 8, 2, 30 * 782 // 2),
}


@FASTEST
@pytest.mark.parametrize("name", SCRIPTS)
def test_batches_and_updates_equal_the_scripts(name):
    recipe = RECIPES[name]
    rows, devices, accumulation, updates = SCRIPTS[name]
    assert recipe.micro_batch_size == rows * devices
    assert recipe.accumulation == accumulation
    optimizer = recipe.optimizer(100)
    requested = optimizer.gradient_accumulation_steps
    assert requested == (accumulation if accumulation > 1 else None)
    if updates is not None:
        assert recipe.total_steps(100_003) == updates


@FASTEST
def test_heads_equal_the_scripts():
    for name in ("flickr30k_base", "coco_base"):
        assert RECIPES[name].projection_dim == 256
    dropouts = {n: r.head_dropout for n, r in RECIPES.items() if r.head_dropout}
    assert dropouts == {"nlvr2_base": 0.1}


def test_differences_are_printed():
    recipe = RECIPES["vqa_base"].replace(batch_size=64)
    assert recipe.differences() == {"batch_size": (64, 512)}
    assert "batch_size: 64   [paper: 512]" in str(recipe)
    assert "[paper" not in str(RECIPES["vqa_base"])


def test_tiny_changes_only_sizes_and_rates():
    sizes = {
        *("size", "dataset", "image_size", "text_length", "batch_size"),
        *("learning_rate", "new_poolers", "epochs", "steps"),
        *("accumulation", "shortlist"),
    }
    for recipe in RECIPES.values():
        changed = set(recipe.tiny().differences())
        assert changed - set(recipe.differences()) <= sizes
        assert recipe.tiny().total_steps(10**6) == 300


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
@pytest.mark.parametrize("own", [1, 2])
def test_other_accumulation_than_the_recipe_is_rejected(own):
    recipe = RECIPES["vqa_base"].replace(accumulation=own)
    with pytest.raises(ValueError, match=r"recipe.replace\(accumulation=4\)"):
        recipe.optimizer(100, gradient_accumulation_steps=4)


TASKS = {
    "VQA": vqa,
    "Entailment": lambda: kbt.BridgeTowerEntailment(shallow()),
    "NLVR2": lambda: kbt.BridgeTowerNLVR2(shallow()),
    "Pretraining": lambda: kbt.BridgeTowerPretraining(
        shallow(), objectives=("mlm", "itm")
    ),
    "ImageClassifier": lambda: kbt.BridgeTowerImageClassifier(
        shallow(), labels=["cat", "dog"]
    ),
    "TextClassifier": lambda: kbt.BridgeTowerTextClassifier(
        shallow(), labels=["no", "yes"]
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_an_optimizer_for_its_task(name):
    recipe = RECIPES[name]
    if recipe.task == "Retrieval":
        widths = {"hard_negatives": 8}
        task = retrieval(recipe.objective, widths.get(recipe.objective))
    else:
        task = TASKS[recipe.task]()
    optimizer = recipe.optimizer(100)
    optimizer.build(task.trainable_variables)
    assert len(optimizer._factors) == len(task.trainable_variables)
    assert 1.0 in optimizer._factors
    if recipe.task not in ("ImageClassifier", "TextClassifier"):
        assert recipe.fusion_factor in optimizer._factors
        # The rest of a frozen fusion has a row too.
        task.backbone.fusion.trainable = False
        recipe.optimizer(100).build(task.trainable_variables)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 0}, "`batch_size` of a recipe must be a positive"),
        ({"image_size": -3}, "`image_size` of a recipe must be a positive"),
        ({"epochs": None}, "`epochs` of a recipe must be a positive"),
        ({"accumulation": 0}, "`accumulation` of a recipe must be a positive"),
        ({"accumulation": 3}, "`accumulation` of a recipe must divide"),
        ({"steps": 0}, "`steps` of a recipe must be a positive"),
        ({"size": "huge"}, "`size` must be one of"),
        ({"warmup": 5.0}, "`warmup` of a recipe must be a share"),
        ({"warmup": -1}, "`warmup` of a recipe must be a share"),
    ],
)
def test_wrong_values_are_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        RECIPES["vqa_base"].replace(**changes)


def test_fewer_samples_than_a_batch_are_rejected():
    with pytest.raises(ValueError, match="`samples` must be one batch"):
        RECIPES["vqa_base"].total_steps(500)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="nearest is 'vqa_base'"):
        paper.get("vqa_bas")
    with pytest.raises(ValueError, match="nearest is 'weight_decay'"):
        RECIPES["vqa_base"].replace(weight_decy=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["vqa_base"].epochs = 3
