"""Recipes: values that can be replaced, compared and trained with."""

import dataclasses

import pytest
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.training import recipes
from keras_bridgetower.training.recipes import RECIPES

PATCH = {"base": 16, "large": 14}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built(name):
    recipe = RECIPES[name]
    assert recipe.name == name and recipe.source
    assert hasattr(kbt, f"BridgeTower{recipe.task}")
    assert recipe.image_size % PATCH[recipe.size] == 0
    # One of the two says how long the run is.
    assert (recipe.epochs is None) != (recipe.steps is None)
    assert recipe.differences() == {}
    assert name in str(recipe)


def test_what_differs_is_shown():
    recipe = RECIPES["vqa_base"].replace(batch_size=64)
    assert recipe.differences() == {"batch_size": (64, 512)}
    assert "batch_size: 64   [paper: 512]" in str(recipe)
    assert "[paper" not in str(RECIPES["vqa_base"])


def test_the_miniature_keeps_everything_but_sizes_and_rates():
    sizes = {
        *("size", "dataset", "image_size", "text_length", "batch_size"),
        *("learning_rate", "new_poolers", "epochs", "steps"),
    }
    for recipe in RECIPES.values():
        assert set(recipe.tiny().differences()) <= sizes
        assert recipe.tiny().total_steps(10**6) == 300


def test_the_optimizer_of_a_run():
    recipe = RECIPES["vqa_base"]
    # 443,757 questions: 866 batches of 512 an epoch.
    total = recipe.total_steps(443_757)
    assert total == 8660
    optimizer = recipe.optimizer(total, global_clipnorm=1.0)
    optimizer.build(vqa().trainable_variables)
    schedule = optimizer._learning_rate
    assert schedule.warmup_steps == 519
    assert float(schedule(519)) == pytest.approx(1e-5)
    assert set(optimizer._factors) == {1.0, 5.0, 50.0}
    assert set(optimizer._decays) == {0.0, 0.05}


def test_unknown_names_meet_the_nearest():
    with pytest.raises(ValueError, match="nearest is 'vqa_base'"):
        recipes.get("vqa_bas")
    with pytest.raises(ValueError, match="nearest is 'weight_decay'"):
        RECIPES["vqa_base"].replace(weight_decy=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["vqa_base"].epochs = 3
