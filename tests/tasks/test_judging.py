"""Visual entailment, and statements about two pictures."""

import every_task
import numpy as np
import pytest
import tensorflow as tf
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import classifier_head
from builders import difference
from builders import features
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on

import keras_bridgetower as kbt


def pairs(batch=4):
    x, _ = raw(2 * batch)
    images = x["images"].reshape(batch, 2, *x["images"].shape[1:])
    return {"images": images, "text": x["text"][:batch]}


def inputs(batch=3):
    """Features, the pictures of each pair different."""
    left, right = features(batch=batch), features(batch=batch, seed=1)
    images = np.stack([left["images"], right["images"]], axis=1)
    return {**left, "images": images}


@pytest.fixture(scope="module")
def tasks():
    """Tasks that are asked but not changed."""
    made = shallow()
    names = ("entailment", "nlvr2")
    return {name: randomise(every_task.make(name, made)) for name in names}


def test_entailment_in_closed_form():
    judge, x = randomise(kbt.BridgeTowerEntailment(backbone())), features()
    pooled = judge.backbone(x, training=False)["pooled"]
    expected = classifier_head(pooled, judge.heads["entailment"].weights)
    assert difference(judge(x, training=False), expected) <= 1e-5


@slow_on("jax")
def test_nlvr2_in_closed_form():
    judge = randomise(kbt.BridgeTowerNLVR2(backbone()))
    made, parts = inputs(), judge.backbone
    text = parts.text_tower({k: made[k] for k in parts.text_tower.input})
    pooled = [
        array(
            parts.fusion(
                text,
                parts.image_tower(made["images"][:, place]),
                made["padding_mask"],
                image_row=place + 1,
            )["pooled"]
        )
        for place in (0, 1)
    ]
    head = judge.heads["nlvr2"]
    expected = classifier_head(np.concatenate(pooled, -1), head.weights)
    found = array(judge(made, training=False))
    assert difference(found, expected) <= 1e-5
    # The order of the pictures counts.
    swapped = {**made, "images": made["images"][:, ::-1].copy()}
    assert difference(judge(swapped, training=False), expected) > 1e-3


@LONG_ELSEWHERE
def test_each_tower_runs_once(tasks, monkeypatch):
    runs = []
    call = kbt.Tower.call

    def counted(tower, *args, **kwargs):
        runs.append(tower.name)
        return call(tower, *args, **kwargs)

    monkeypatch.setattr(kbt.Tower, "call", counted)
    tasks["nlvr2"](inputs(), training=False)
    assert sorted(runs) == ["image_tower", "text_tower"]


@FASTEST
def test_pictures_that_are_no_pairs():
    made = every_task.preprocessor("nlvr2")
    black = np.zeros((20, 30, 3), "uint8")
    for images, text in (
        (black, "a"),
        ([[black] * 3], ["a"]),
        ([[black] * 2], ["a", "b"]),
        ([[black] * 2], "a"),
    ):
        with pytest.raises(ValueError, match="which must be"):
            made({"images": images, "text": text})


@FASTEST
def test_pairs_in_every_place():
    made, x = every_task.preprocessor("nlvr2"), pairs(3)
    eager = made(x)
    lists = made({**x, "images": [list(pair) for pair in x["images"]]})
    assert difference(lists, eager) == 0
    converted = made.image_converter(x["images"][1, 1])
    assert difference(eager["images"][1, 1], converted) == 0
    rows = tf.data.Dataset.from_tensor_slices(x)
    (mapped,) = rows.batch(3).map(made)
    assert difference({k: v.numpy() for k, v in mapped.items()}, eager) == 0
    for i, single in enumerate(rows.map(made)):
        assert difference(single["images"].numpy(), eager["images"][i]) == 0
