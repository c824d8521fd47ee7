"""A plan counts what training really needs."""

import dataclasses
import json

import keras
import pytest
from builders import FASTEST
from builders import long_but

from keras_bridgetower import training
from keras_bridgetower.apps.cli.data import _plan_warning
from keras_bridgetower.training import planning
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe
from keras_bridgetower.training.recipes.task_of_recipe import on_new_encoders

pytestmark = FASTEST


@pytest.fixture
def few_layers(monkeypatch):
    """Recipes of one layer of each kind: a plan runs all layers."""
    monkeypatch.setitem(task_of_recipe.SIZES, "tiny", (16, 2, 1, 1, 8))


def tiny(name="vqa_base", **values):
    return paper.get(name).replace(size="tiny", image_size=32, **values)


@pytest.mark.parametrize(
    "name",
    long_but(
        ["vqa_base", "pretrain_base", "nlvr2_base", "coco_base", "glue"],
        *("pretrain_base", "nlvr2_base", "glue"),
    ),
)
def test_activations_from_shapes_equal_measured_ones(name):
    def kept():
        task = on_new_encoders(tiny(name))
        x = planning.features(task, 2, 7)
        found = [planning.activation_bytes(task, x)]
        task.backbone.checkpoint_activations()
        return [*found, planning.activation_bytes(task, x)]

    with planning.meta_device():
        predicted = kept()
    # Kernels of the CPU keep a little more or less than the shapes say.
    assert predicted == pytest.approx(kept(), rel=0.1)
    assert predicted[1] < predicted[0]


def test_operations_are_those_of_the_matrices():
    """Count a layer by hand; computing again adds one forward pass."""
    with planning.meta_device():
        model = keras.Sequential(
            [keras.Input((7,), name="x"), keras.layers.Dense(5)]
        )
        x = keras.ops.ones((3, 7))
        # The first layer needs no gradient of its input.
        assert planning.step_operations(model, x) == 2 * (2 * 3 * 7 * 5)
        task = on_new_encoders(tiny())
        x = planning.features(task, 2, 7)
        kept = planning.step_operations(task, x)
        task.backbone.checkpoint_activations()
        assert 1.1 < planning.step_operations(task, x) / kept < 4 / 3


def test_copies_of_weights_in_bfloat16_are_counted():
    layers = [
        keras.layers.Dense(n, use_bias=False, dtype="mixed_bfloat16")
        for n in (5, 3)
    ]
    with planning.meta_device():
        model = keras.Sequential([keras.Input((7,)), *layers])
        found = planning.activation_bytes(model, keras.ops.ones((2, 7)))
    # The input of each layer, and the weight behind the first one.
    assert found == 2 * (2 * 7 + 2 * 5 + 5 * 3)


def test_weights_by_kind():
    with planning.meta_device():
        task = on_new_encoders(tiny())
    whole = planning.weight_bytes(task, 4)
    floats = [w for w in task.weights if "int" not in w.dtype]
    assert whole["gradients"] == 4 * sum(w.value.numel() for w in floats)
    assert whole["optimizer"] == 2 * whole["gradients"]
    split = planning.weight_bytes(task, 4, "fsdp")
    # Weights of which no axis divides by four are whole on each device.
    assert whole["optimizer"] / 4 < split["optimizer"] < whole["optimizer"] / 3


@pytest.mark.usefixtures("few_layers")
def test_hours_cost_and_what_fits():
    recipe = tiny(batch_size=64, epochs=3)
    found = training.plan(recipe, "v5e", 4, 640, utilization=0.5, price=2.0)
    assert found.steps == 30 and found.passes == 3
    plain, again, *split = found.ways
    per_second = 0.5 * 4 * 197e12
    computed = 3 * 640 * plain.operations / per_second
    # In one machine each device sends 200 GB a second.
    sent = 30 * plain.sent / 200e9
    assert plain.hours * 3600 == pytest.approx(computed + sent)
    assert plain.rows_per_second == pytest.approx(3 * 640 / (computed + sent))
    assert plain.cost == pytest.approx(plain.hours * 4 * 2.0)
    assert again.hours > plain.hours and again.needed < plain.needed
    assert {way.kind for way in split} == {"fsdp"}
    # Of four devices in a ring, each sends three quarters twice.
    assert plain.sent == pytest.approx(1.5 * plain.memory["gradients"])
    recipe = recipe.replace(accumulation=4)
    values = {"network": 1e6, "machines": 2, "window": 1}
    found_of_parts = training.plan(recipe, "v5e", 4, 6400, **values)
    parts = found_of_parts.ways
    assert parts[0].sent == pytest.approx(plain.sent)
    assert parts[2].sent == pytest.approx(4 * split[0].sent)
    # Sending takes nearly all of the time.
    seconds = found_of_parts.steps * parts[0].sent / 1e6
    assert parts[0].hours * 3600 == pytest.approx(seconds, rel=1e-3)
    # Of seven shards, both machines fetch the one on the border.
    assert found_of_parts.fetched == 8 / 7 and found.fetched == 1
    assert all(way.fits for way in found.ways)
    # Sums of gradients, and with whole weights the buckets that are sent.
    for way, many in zip(parts, (2, 2, 1, 1), strict=True):
        gradients = way.memory["gradients"]
        assert way.memory["accumulated"] == many * gradients
    assert {way.memory["accumulated"] for way in found.ways} == {0}
    none = dataclasses.replace(plain, largest=0)
    assert _plan_warning(found, none).endswith("; not even one row fits")


@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize("number", long_but(range(4), 3))
def test_the_largest_batch_fits_and_a_larger_one_does_not(number):
    def way(rows, accumulation=1):
        recipe = tiny(batch_size=2 * rows, accumulation=accumulation)
        return training.plan(recipe, "v5e", 2, 10**6).ways[number]

    largest = way(64).largest
    larger = way(largest + 1)
    assert way(largest).fits and not larger.fits
    # Too large a batch says how many rows of its parts fit.
    assert larger.largest < largest and way(2 * larger.largest, 2).fits


@pytest.mark.parametrize(
    "message, change, values",
    [
        ("`device` must be one of", {}, {"device": "h1000"}),
        ("must divide the batch of 64.*devices=3", {}, {"devices": 3}),
        ("`rows` must be given: vqa_base has 10 epochs", {}, {"rows": None}),
        ("`utilization` must be a number above 0", {}, {"utilization": 0}),
        ("at least `batch_size`, 64", {}, {"rows": 5}),
    ],
)
def test_plans_that_cannot_be(message, change, values):
    given = {"device": "h100", "devices": 2, "rows": 100} | values
    with pytest.raises(ValueError, match=message):
        training.plan(tiny(batch_size=64), **given)


@pytest.mark.usefixtures("few_layers")
def test_the_command(run):
    words = ["plan", "vqa_base", "--devices", "v5e:2", "--rows", "1e3"]
    words += ["-s", "size=tiny", "--row-bytes", "5e4"]
    words += ["--machines", "2", "-s", "image_size=32", "-s", "batch_size=16"]
    found = json.loads(run(*words, "--json").out)
    assert found["steps"] == 10 * 63 and len(found["ways"]) == 4
    for way in found["ways"]:
        # Both machines fetch the only shard.
        assert way["read"] == 2 * 5e4 * way["rows_per_second"]
    words[5] = "1e6"
    said = run(*words, "-s", "batch_size=400000")
    assert "rows a batch do: raise `accumulation` by --set" in said.err
    said = run("plan", "vqa_base", "--devices", "8", code=2)
    assert "such as h100:8" in said.err
    said = run("plan", "vqa_base", code=2)
    assert "one of `--devices` and `--compile`" in said.err
    said = run("plan", "vqa_base", "--compile", "v5e:2x2", *words[4:6], code=2)
    assert "`--rows` has no effect without --devices" in said.err
    said = run(*words, "--distribute", "fsdp", code=2)
    assert "`--distribute` has no effect without --compile" in said.err
    with pytest.raises(ValueError, match="`KERAS_BACKEND` must be .*jax"):
        training.compile_step(tiny(), "v5e:2x2")
