"""Recipes: their values, differences, optimizers and tasks."""

import dataclasses

import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import retrieval
from builders import shallow
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe
from keras_bridgetower.training.recipes.paper import RECIPES

pytestmark = LONG_ELSEWHERE

WOHF, WC = ("blip_randaug_wohf", "blip"), ("blip_randaug_wc", "blip")
CLIP, RANDAUG = ("clip", "clip"), ("clip_randaug", "clip")
# By the scripts, which override the authors' `config.py`: side, transforms for
# training and evaluation, rate, its factor for heads, weight decay, warm-up,
# epochs, samples of an update, tokens, width of the head.
SCRIPTS = {
    "pretrain_base": (288, *CLIP, 1e-5, 5, 0.01, 0.1, None, 4096, 50, None),
    "pretrain_large": (294, *CLIP, 1e-5, 5, 0.01, 0.1, None, 4096, 50, None),
    "meter_pretrain": (288, *CLIP, 1e-5, 5, 0.01, 0.1, None, 4096, 50, None),
    "vqa_base": (576, *WOHF, 1e-5, 50, 0.05, 0.06, 10, 512, 50, 2),
    "vqa_large": (574, *WOHF, 4e-6, 50, 0.05, 0.06, 10, 512, 50, 2),
    "vqa_base_without_pretraining": (
        *(576, *RANDAUG, 2e-5, 50, 0.01, 0.1, 10, 512, 50, 1),
    ),
    "vqa_large_without_pretraining": (
        *(574, *RANDAUG, 1e-5, 50, 0.01, 0.1, 10, 512, 50, 1),
    ),
    "snli_ve_base": (384, *WC, 3e-6, 10, 0.01, 0.06, 5, 64, 50, 2),
    "nlvr2_base": (384, *WC, 5e-6, 10, 0.008, 0.1, 10, 64, 50, 1.5),
    "flickr30k_ranking_base": (
        *(384, *WC, 1.1e-5, 5, 0.01, 0.1, 20, 2048, 40, None),
    ),
    "flickr30k_base": (384, *WC, 5e-6, 5, 0.01, 0.05, 20, 512, 40, None),
    "coco_base": (384, *WC, 4.5e-6, 5, 0.01, 0.1, 30, 256, 40, None),
    "meter_vqa": (576, *RANDAUG, 5e-6, 50, 0.01, 0.1, 10, 512, 50, 1),
    "meter_nlvr2": (288, *RANDAUG, 1e-5, 10, 0.01, 0.1, 10, 256, 50, 1),
    "meter_snli_ve": (384, *RANDAUG, 2e-6, 10, 0.01, 0.1, 5, 64, 50, 1),
    "meter_retrieval": (384, *RANDAUG, 5e-6, 5, 0.01, 0.1, 10, 512, 40, None),
    # Beside BridgeTower: a linear head, at the rate of the rest.
    "cifar": (224, *CLIP, 1e-5, 1, 0.01, 0.06, 10, 512, 50, None),
    "glue": (384, *WC, 1e-5, 1, 0.1, 0.06, 10, 16, 512, None),
}
COLUMNS = (
    *("image_size", "transform", "eval_transform", "learning_rate"),
    *("head_factor", "weight_decay", "warmup", "epochs", "batch_size"),
    *("text_length", "head_scale"),
)
# What differs from these in the scripts.
OTHERS = {
    "size": (
        "base",
        {"pretrain_large", "vqa_large", "vqa_large_without_pretraining"},
    ),
    "fusion_factor": (5, set()),
    "head_dropout": (0, {"nlvr2_base"}),
    "projection_dim": (None, {"flickr30k_base", "coco_base"}),
    "shortlist": (None, {"flickr30k_base", "coco_base"}),
    "steps": (None, {"pretrain_base", "pretrain_large", "meter_pretrain"}),
    "epsilon": (1e-8, {"glue"}),
    "dropout": (0.1, set()),
}
# Their scripts mirror pictures with any text.
MIRRORED = {
    *("snli_ve_base", "nlvr2_base", "flickr30k_ranking_base"),
    *("flickr30k_base", "coco_base"),
}


@FASTEST
def test_recipes_equal_the_scripts():
    assert set(RECIPES) == set(SCRIPTS)
    for name, recipe in RECIPES.items():
        found = tuple(getattr(recipe, column) for column in COLUMNS)
        assert found == SCRIPTS[name], name
    for field, (usual, names) in OTHERS.items():
        values = {name: getattr(r, field) for name, r in RECIPES.items()}
        assert {n for n, value in values.items() if value != usual} == names
    assert RECIPES["nlvr2_base"].head_dropout == 0.1
    assert RECIPES["glue"].epsilon == 1e-6
    assert RECIPES["pretrain_base"].steps == 100_000
    for name, candidates in (("flickr30k_base", 128), ("coco_base", 256)):
        assert RECIPES[name].projection_dim == 256
        assert RECIPES[name].shortlist == candidates


@FASTEST
@pytest.mark.parametrize("name", RECIPES)
def test_differences_from_the_scripts_are_printed(name):
    recipe, differences = RECIPES[name], {}
    if name in MIRRORED:
        official = "blip_randaug_wc_official"
        differences = {"transform": ("blip_randaug_wc", official)}
        assert f"[paper: {official}]" in str(recipe)
    assert name in str(recipe) and recipe.source in str(recipe)
    assert recipe.differences() == differences
    as_scripted = recipe.replace(**{k: v for k, (_, v) in differences.items()})
    assert as_scripted.differences() == {}


# Rows of a GPU, GPUs, micro-batches, and updates of all epochs over 100,003
# samples: by hand from the scripts.
BATCHES = {
    "pretrain_base": (32, 64, 2, 100_000),
    "pretrain_large": (16, 64, 4, 100_000),
    "snli_ve_base": (8, 8, 1, 5 * 1563),
    "nlvr2_base": (8, 8, 1, 10 * 1563),
    "flickr30k_base": (8, 8, 8, 20 * 1563 // 8),
    "coco_base": (16, 8, 2, 30 * 782 // 2),
}


@FASTEST
@pytest.mark.parametrize("name", BATCHES)
def test_batches_and_updates_equal_the_scripts(name):
    recipe = RECIPES[name]
    rows, devices, accumulation, updates = BATCHES[name]
    assert recipe.micro_batch_size == rows * devices
    assert recipe.accumulation == accumulation
    requested = recipe.optimizer(100).gradient_accumulation_steps
    assert requested == (accumulation if accumulation > 1 else None)
    assert recipe.total_steps(100_003) == updates


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


def task_of(recipe):
    if recipe.task == "Retrieval":
        widths = {"hard_negatives": 8}
        return retrieval(recipe.objective, widths.get(recipe.objective))
    cls = getattr(kbt, f"BridgeTower{recipe.task}")
    return {
        "VQA": vqa,
        "Pretraining": lambda: cls(shallow(), objectives=("mlm", "itm")),
        "ImageClassifier": lambda: cls(shallow(), labels=["cat", "dog"]),
        "TextClassifier": lambda: cls(shallow(), labels=["no", "yes"]),
    }.get(recipe.task, lambda: cls(shallow()))()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_an_optimizer_for_its_task(name):
    recipe = RECIPES[name]
    task = task_of(recipe)
    optimizer = recipe.optimizer(100)
    optimizer.build(task.trainable_variables)
    assert len(optimizer._factors) == len(task.trainable_variables)
    assert 1.0 in optimizer._factors
    if recipe.task not in ("ImageClassifier", "TextClassifier"):
        assert recipe.fusion_factor in optimizer._factors
        # The rest of a frozen fusion has a row too.
        task.backbone.fusion.trainable = False
        recipe.optimizer(100).build(task.trainable_variables)


@FASTEST
def test_a_preset_keeps_the_width_of_its_head(capsys):
    recipe = RECIPES["coco_base"].tiny()
    preset = "bridgetower_tiny_easy_pretrain"
    task = task_of_recipe.from_preset(recipe, preset, None)
    task_of_recipe.print_kept_values(recipe, task)
    assert task.projection_dim == 64
    assert "projection_dim: 64, kept from the preset" in capsys.readouterr().out


WRONG = [
    *(({name: 0}, name) for name in ("batch_size", "accumulation", "steps")),
    ({"image_size": -3}, "image_size"),
    ({"epochs": None}, "epochs"),
    ({"accumulation": 3}, "accumulation"),
    ({"size": "huge"}, "size"),
    ({"weight_decy": 0.1}, "nearest is 'weight_decay'"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_wrong_values_are_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        RECIPES["vqa_base"].replace(**changes)


def test_wrong_uses_are_rejected():
    with pytest.raises(ValueError, match="`samples` must be"):
        RECIPES["vqa_base"].total_steps(500)
    with pytest.raises(ValueError, match="nearest is 'vqa_base'"):
        paper.get("vqa_bas")
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["vqa_base"].epochs = 3
