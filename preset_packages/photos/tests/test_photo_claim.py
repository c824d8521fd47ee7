"""Comparing variants of the fusion, on a world of disks."""

import json
import shutil
import types

import keras
import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from builders import difference
from builders import long_but
from keras_bridgetower_drawings.training.emoji.model import Together
from keras_bridgetower_photos.training import claim
from keras_bridgetower_photos.training import claim_tables
from keras_bridgetower_photos.training import classes
from keras_bridgetower_photos.training import fusing
from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training import lists
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import score

import keras_bridgetower as kbt

pytestmark = FASTEST


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose start is there, with epochs of one step."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    words = [f"noun{i}" for i in range(tiny_photos.CLASSES)]
    known = [classes.Class((word,), (), "", word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "FUSION", model.FUSION | tiny_photos.FUSION)
        patch.setattr(model, "SPACE", 12)
        patch.setattr(claim, "STEPS", 1)
        for module in (lists, fusing):
            patch.setattr(module, "LISTS", 4)
            patch.setattr(module, "WRONG", 2)
        patch.setattr(score, "SCENES", 3)
        # Matching alone orders the lists.
        patch.setattr(score, "SHARPNESS", 0.0)
        # The descriptions are those of other pictures.
        patch.setattr(gallery, "described", gallery.named)
        made = types.SimpleNamespace(
            folder=folder,
            dtype="float32",
            seed=0,
            world=tiny_photos.disks(folder),
            classes=known,
            pools=lambda: [folder / "pools/train_0"],
        )
        patch.setattr(score.packages, "fetch", lambda folder: None)
        patch.setattr(score.things, "load", lambda folders: made.world)
        made.answers = classes.answers(made.world, known)
        made.names = model.Names(
            rng.normal(size=(tiny_photos.CLASSES, 16)).astype("float32"),
            np.eye(16, dtype="float32"),
            rng.normal(size=(len(made.answers), 24)).astype("float32"),
        )
        nouns, count = ("owl", "lemon"), sum(map(len, made.world))
        for name in ("train_0", "outliers"):
            tiny_photos.write_pool(folder / "pools" / name, nouns)
        tiny_photos.write_pool(folder / "pools/gallery", nouns, count)
        tokenizer = tiny_photos.tokenizer()
        tasks = model.new_tasks(
            *tiny_photos.encoders(tokenizer.vocabulary_size()),
            tokenizer,
            made.answers,
            made.names,
        )
        Together(*tasks).save_to_preset(folder / "start")
        made.start = tasks[1]
        yield made


@pytest.fixture(scope="module")
def results(run):
    """The folder of two variants and two seeds, each of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        both = ("METER", "BridgeTower")
        changes = claim.variants()
        patch.setattr(claim, "variants", lambda: {n: changes[n] for n in both})
        folder = claim.compare(run, 2, (0, 1), "test")
        # What is done is not done again.
        patch.setattr(claim, "learn", None)
        patch.setattr(claim, "Exam", None)
        assert claim.compare(run, 2, (1, 0), "test") == folder
    return folder


@pytest.mark.slow
def test_search_by_vectors_is_the_same_and_matching_is_not(results):
    runs = claim_tables.read(results, "test")
    assert {name: [*seeds] for name, seeds in runs.items()} == {
        "METER": [0, 1],
        "BridgeTower": [0, 1],
    }
    every = [run for seeds in runs.values() for run in seeds.values()]
    for name in claim_tables.SCORES[1:]:
        alone = {tuple(run[f"{name}, by vectors"]) for run in every}
        assert len(alone) == 1
    matched = {tuple(run["nDCG@10, named"]) for run in every}
    assert len(matched) == 4
    assert {*every[0]["VQA"]} <= {0, 1}
    assert {*every[0]["scene"]} == {0, 1, 2}


@pytest.mark.slow
def test_table_of_what_is_there(results, tmp_path):
    assert "no scores" in claim_tables.write(tmp_path, "test")
    for name in ("METER_0", "METER_1", "BridgeTower_1"):
        shutil.copytree(
            results / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("preset"),
        )
    text = claim_tables.write(tmp_path, "test")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    cells = {row[0]: row[1:] for row in rows}
    found = json.loads((tmp_path / "claims_test.json").read_text())
    one = json.loads((results / "BridgeTower_1/test.json").read_text())
    assert cells["BridgeTower"][:3] == [
        *(f"{one['weights']:,}", "1", f"{100 * np.mean(one['VQA']):.1f}")
    ]
    assert cells["METER"][1] == "2" and "±" in cells["METER"][2]
    assert cells["BridgeTower - METER"][0] == "1"
    assert found["differences"]["BridgeTower - METER"]["seeds"] == [1]
    counts = [int(cells[sort][0]) for sort in {*one["sort"]}]
    assert sum(counts) == len(one["VQA"])


def test_fusions_have_equal_weights(run):
    start = run.start.backbone
    changed, weights = claim.equal_variants(start)
    assert [*changed] == ["METER", "BridgeTower", "ManagerTower"]
    heads = set()
    for name, changes in changed.items():
        tasks = model.new_tasks(
            start.image_encoder,
            start.text_encoder,
            run.start.preprocessor.tokenizer,
            run.answers,
            None,
            **changes,
        )
        learned = fusing.Fusion(*tasks).trainable_weights
        learned = sum(np.prod(weight.shape) for weight in learned)
        assert abs(weights[name] / weights["BridgeTower"] - 1) < 0.01
        heads.add(learned - weights[name])
    # All else that learns is the same.
    assert len(heads) == 1


@pytest.mark.slow
def test_top_only_reads_the_highest_states_of_the_same_batches(run, results):
    run.seed, batches = 0, {}
    for name in ("METER", "BridgeTower"):
        preset = results / f"{name}_0/preset"
        data = claim.States(run, kbt.BridgeTowerPretraining.from_preset(preset))
        data.begin(0)
        batches[name] = data[0]
    (top, top_labels), (every, labels) = batches.values()
    for of in ("state", "listed"):
        top[f"{of}_2"] = top.pop(f"{of}_0")
        assert every.keys() >= {f"{of}_0", f"{of}_1"}
    assert len(every) == len(top) + 4
    for name, values in top.items():
        np.testing.assert_array_equal(values, every[name])
    for name, values in labels.items():
        np.testing.assert_array_equal(values, top_labels[name])


@pytest.mark.slow
def test_a_stopped_run_ends_like_one_that_was_not_stopped(
    run, results, tmp_path, monkeypatch
):
    # Managers would draw other noise.
    whole = kbt.BridgeTowerPretraining.from_preset(results / "METER_1/preset")
    width = whole.backbone.fusion.intermediate_dim
    changes = claim.variants()["METER"] | {"intermediate_dim": width}
    run.seed, begin = 1, claim.States.begin

    def stop(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        begin(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(claim.States, "begin", stop)
        with pytest.raises(KeyboardInterrupt):
            claim.learn(run, changes, 2, tmp_path)
    assert not (tmp_path / "preset").exists()
    claim.learn(run, changes, 2, tmp_path)
    resumed = kbt.BridgeTowerPretraining.from_preset(tmp_path / "preset")
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        assert difference(one, other) < 1e-6, one.path


@pytest.mark.parametrize(
    "name", long_but(["METER", "BridgeTower", "ManagerTower"], "ManagerTower")
)
def test_each_variant_begins_with_what_is_alike(
    name, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(claim, "train", lambda *values: None)
    claim.learn(run, claim.variants()[name], 1, tmp_path)
    task = kbt.BridgeTowerPretraining.from_preset(tmp_path / "preset")
    for step in task.backbone.fusion.steps[-model.NAMED :]:
        kernel = step.text_layer.cross_attention.query_dense.kernel
        kernel = keras.ops.convert_to_numpy(kernel)
        same = kernel.reshape(len(kernel), -1)
        # But for where they are, the last two values of each head.
        alike = np.tile([1.0] * 4 + [0.0] * 2, 2)
        np.testing.assert_array_equal(same, model.SHARPER * np.diag(alike))


def test_interval_of_a_difference_is_that_of_its_scenes():
    rng = np.random.default_rng(0)
    scenes = np.sort(rng.integers(300, size=1500))
    # Questions of one scene are right or wrong together.
    shift = rng.normal(0.1, 0.2, 300)[scenes]
    before, after = {}, {}
    for seed in range(2):
        first = rng.random(1500)
        second = first + shift + rng.normal(0, 0.01, 1500)
        texts = {name: rng.random(40) for name in claim_tables.SCORES[1:]}
        before[seed] = {"VQA": first, "scene": scenes} | texts
        after[seed] = {"VQA": second, "scene": scenes} | texts
    found = claim_tables.differences(before, after)
    change = np.mean([after[i]["VQA"] - before[i]["VQA"] for i in (0, 1)], 0)
    mean = change.mean()
    sums = np.bincount(scenes, change - mean)
    deviation = np.sqrt((sums**2).sum()) / 1500
    wanted = 100 * (mean + np.array([-1.96, 1.96]) * deviation)
    assert found["VQA"]["difference"] == pytest.approx(100 * mean)
    np.testing.assert_allclose(found["VQA"]["interval"], wanted, atol=0.15)
    # As if all questions were independent, it would be half as wide.
    assert 1.96 * change.std() / 1500**0.5 < 0.6 * 1.96 * deviation
    assert found["R@1, named"]["interval"] == [0, 0]
