"""Frozen weights stay frozen in copies and files."""

import copy
import pickle

import keras
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import backbone
from builders import eager
from builders import fast
from builders import features
from builders import moved
from builders import preprocessor
from builders import shallow
from builders import some_everywhere

import keras_bridgetower as kbt

PARTS = {
    "text tower": lambda task: task.backbone.text_tower,
    "image encoder": lambda task: task.backbone.image_encoder,
    "fusion": lambda task: task.backbone.fusion,
    "head": lambda task: task.heads["vqa"],
    "task": lambda task: task,
}


def saved_and_loaded(task, folder):
    task.save(folder / "a.keras")
    return keras.saving.load_model(folder / "a.keras")


COPIES = {
    "copy.deepcopy": lambda task, _: copy.deepcopy(task),
    "save": saved_and_loaded,
    "pickle": lambda task, _: pickle.loads(pickle.dumps(task)),
    "from_config": lambda task, _: type(task).from_config(task.get_config()),
}


@pytest.fixture
def task():
    return kbt.BridgeTowerVQA(shallow(), preprocessor())


def frozen_in(task):
    """Return the indices of the weights that are not trained."""
    places = enumerate(task.weights)
    return [place for place, weight in places if not weight.trainable]


CASES = [
    *((part, "save") for part in PARTS),
    *(("fusion", kind) for kind in COPIES if kind != "save"),
]


@pytest.mark.parametrize(
    "case", some_everywhere(CASES, ("text tower", "save")), ids=str
)
def test_copies_of_a_frozen_part(case, task, tmp_path):
    part, kind = case
    PARTS[part](task).trainable = False
    copied = COPIES[kind](task, tmp_path)
    assert frozen_in(copied) == frozen_in(task)
    assert len(copied.trainable_variables) == len(task.trainable_variables)
    assert not PARTS[part](copied).trainable
    for other in set(PARTS) - {part, "task"}:
        mine, its = PARTS[other](task), PARTS[other](copied)
        assert mine.trainable_variables or not its.trainable_variables


@pytest.mark.parametrize("trainable", some_everywhere([False, True], True))
def test_another_choice_of_weights_needs_another_compile(trainable):
    task = kbt.BridgeTowerImageClassifier(shallow(), labels=ANSWERS)
    x, y = {"images": features(batch=4)["images"]}, np.arange(4) % 4
    task.backbone.trainable = not trainable
    fast(task)
    task.backbone.trainable = trainable
    message = "`compile` must be called again, with a new optimizer, after a"
    for train in (task.fit, task.train_on_batch):
        with pytest.raises(ValueError, match=message):
            train(x, y)
    if keras.config.backend() != "jax":  # There a step takes half a minute.
        eager(task)
        changed = moved(task, lambda: task.train_on_batch(x, y))
        assert changed == {w.path for w in task.trainable_weights}


@FASTEST
def test_single_frozen_weights_are_saved(task, tmp_path):
    never = frozen_in(task)
    task.backbone.fusion.trainable_variables[3].trainable = False
    copied = saved_and_loaded(task, tmp_path)
    assert frozen_in(copied) == frozen_in(task)
    assert len(frozen_in(copied)) == len(never) + 1


@LONG_ELSEWHERE
def test_presets_open_fully_trainable(task, tmp_path):
    never = frozen_in(task)
    task.backbone.trainable = False
    task.save_to_preset(tmp_path / "frozen")
    opened = kbt.BridgeTowerVQA.from_preset(tmp_path / "frozen")
    assert frozen_in(opened) == never and opened.backbone.trainable
    for part in (opened.backbone.image_encoder, opened.backbone.text_encoder):
        assert part.trainable


@LONG_ELSEWHERE
def test_frozen_parts_of_a_custom_model_are_saved(tmp_path):
    model = backbone()
    parts = model.text_tower, model.fusion.steps[0], model.image_tower.blocks[0]
    for part in parts:
        part.trainable = False
    outputs = keras.layers.Dense(3)(model.output["pooled"])
    own = keras.Model(model.input, outputs)
    copied = saved_and_loaded(own, tmp_path)
    assert frozen_in(copied) == frozen_in(own)
    assert len(copied.trainable_variables) == len(own.trainable_variables)
