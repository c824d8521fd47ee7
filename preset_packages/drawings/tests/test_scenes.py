"""Scenes of drawings, their near misses and captions."""

import json
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from builders import array
from builders import assert_same_weights
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import claim
from keras_bridgetower_drawings.training.scenes import fusing
from keras_bridgetower_drawings.training.scenes import reading
from keras_bridgetower_drawings.training.scenes import release
from keras_bridgetower_drawings.training.scenes import score
from keras_bridgetower_drawings.training.scenes import seeing
from keras_bridgetower_drawings.training.scenes import start
from keras_bridgetower_drawings.training.scenes import things
from keras_bridgetower_drawings.training.scenes.scenes import COLORS
from keras_bridgetower_drawings.training.scenes.scenes import PATTERNS
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World
from keras_bridgetower_drawings.training.scenes.things import Thing
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.presets.table import PRESETS

NAMES = ("owl", "lemon", "bus", "ant", "drum", "fir", "pie", "boat", "bell")
NAMES = (*NAMES, "hot dog", "fries", "crab")


def world(part="training"):
    """Things that are gray disks."""
    y, x = np.mgrid[:64, :64] - 31.5
    disk = np.full((64, 64, 4), 128, "uint8")
    disk[..., 3] = 255 * (x**2 + y**2 < 30**2)
    return World([Thing(name, {"me": disk}) for name in NAMES], part)


def rows(count=15):
    rng = np.random.default_rng(0)
    for number in range(count):
        for sort in SORTS:
            yield sort, rng, world().scene(rng, sort), number


def test_pixels_show_the_facts_of_a_scene():
    first, again = ([scene for _, _, scene, _ in rows(3)] for _ in range(2))
    assert first == again
    made, rng = world(), np.random.default_rng(0)
    for _ in range(30):
        scene = made.scene(rng, "color")
        pixels = made.draw(scene, 96).astype("float32")
        centers, sizes = {}, {}
        for one in scene.things:
            # The disk is gray, so that its paint is known.
            paint = 0.9 * np.array(COLORS[one.color])
            paint = paint * (0.45 + 0.75 * 128 / 255) + 0.1 * 128
            paint = np.clip(paint, 0, 255)
            seen = np.abs(pixels - paint).max(-1) < 6
            y, x = np.nonzero(seen)
            centers[one.name] = (x.mean() + 0.5) / 96, (y.mean() + 0.5) / 96
            sizes[one.name] = np.sqrt(seen.sum())
            assert np.hypot(*np.subtract(centers[one.name], one[1:3])) < 0.04
        for fact in scene.facts:
            if fact[0] == "left":
                assert centers[fact[1]][0] < centers[fact[2]][0]
            if fact[0] == "above":
                assert centers[fact[1]][1] < centers[fact[2]][1]
            if fact[0] == "bigger":
                assert sizes[fact[1]] > 1.2 * sizes[fact[2]]


@pytest.mark.parametrize("part", ["training", "validation"])
def test_each_caption_is_true_of_its_own_scene_alone(part):
    """By the order of its words alone, where it tells of a relation."""
    for sort, rng, scene, _ in rows():
        other = world().near_miss(scene, sort, rng)
        told, swapped = captions.captions(scene, sort, part, rng, other)
        assert told.grade(scene) == swapped.grade(other) == 3
        assert told.grade(other) < 3 and swapped.grade(scene) < 3
        assert "{" not in told.text
        if sort not in ("thing", "ground"):
            words = [
                sorted(w for w in re.findall("[a-z]+", c.text) if w not in "an")
                for c in (told, swapped)
            ]
            assert words[0] == words[1] and told.text != swapped.text


def test_a_near_miss_changes_what_it_says_and_nothing_else():
    for sort, rng, scene, _ in rows():
        other = world().near_miss(scene, sort, rng)
        changed = {
            field
            for one, new in zip(scene.things, other.things, strict=True)
            for field in one._fields
            if getattr(one, field) != getattr(new, field)
        }
        wanted = {
            "thing": {"name"},
            "color": {"color"},
            "ground": set(),
            "side": {"x", "y"},
            "above": {"x", "y"},
            # A large thing may have to move inwards.
            "size": {"size", "x", "y"},
        }[sort]
        assert changed <= wanted and scene != other
        assert (scene.ground != other.ground) == (sort == "ground")
        assert world().fewer(scene).things == scene.things[:-1]
        more = world().more(scene, rng)
        assert more is None or more.things[:-1] == scene.things


def test_nothing_of_training_is_in_the_tests():
    rng = np.random.default_rng(0)
    for sort in (*SORTS, "alone"):
        parts = [p for p in captions.GRAMMAR["forms"][sort] if p != "training"]
        forms = [set(captions.forms(sort, part)) for part in parts]
        assert {"validation", "test"} <= set(parts) and all(forms)
        assert len(set.union(*forms)) == sum(map(len, forms))
        held_out = {captions.plain(form) for form in set.union(*forms)}
        for _ in range(2000):
            assert captions.plain(captions.new_form(sort, rng)) not in held_out
    assert "checks" not in PATTERNS["training"]
    parts = things.split([*"abcdefghijklmnopqrstuvwxyz", "guide a", "big b"])
    assert parts[-2:] == parts[:2]
    assert set(things.SPLITS) == set(parts)


def test_lists_hold_the_scene_first_and_its_near_misses():
    for caption, shown in score.lists(world("validation"), 6):
        assert len(shown) == score.LENGTH
        grades = [caption.grade(scene) for scene in shown]
        assert grades[0] == 3 and max(grades) == 3
        assert min(grades) < 2 and len(set(grades)) > 2


def test_places_are_told_what_is_there():
    made, rng = world(), np.random.default_rng(0)
    scene = made.scene(rng, "color")
    names = {name: row for row, name in enumerate(NAMES)}
    told = seeing.truth([scene], 96, names, blends={(0, 1)})
    assert len(told["asked"]) == len(scene.things) - 1
    grid = 12
    for row, mask in zip(told["asked"], told["mask"], strict=True):
        (one,) = (o for o in scene.things if o.name == NAMES[row])
        place = np.flatnonzero(mask)
        x, y = (place % grid + 0.5) / grid, (place // grid + 0.5) / grid
        far = np.maximum(abs(x - one.x), abs(y - one.y))
        assert place.size and far.max() < one.size / 2
        assert (told["where"][0, place, 0] == np.float32(one.x)).all()


@pytest.fixture(scope="module")
def run():
    """All that stages share: things, and a task with both learners."""
    known = kbt.BridgeTowerContrastive.from_preset(start.PRESET)
    task, shown = start.new_task(), list(world().things.values())
    rows, names = seeing.vectors(known, shown)
    sees = seeing.Seeing(task, names)
    words = [Thing(f"{name} house", {"words": None}) for name in NAMES]
    more, others = seeing.vectors(known, words)
    told = rows | {name: len(rows) + row for name, row in more.items()}
    asked = sees.shown_by(others)
    reads = reading.Reading(task, np.concatenate([names, others]), asked)
    things = SimpleNamespace(called=lambda: shown, of=lambda part: shown)
    return SimpleNamespace(**locals())


def test_stages_train_the_task_that_scores(run):
    task, converter = run.task, run.task.preprocessor.image_converter
    assert np.allclose(np.linalg.norm(run.asked, axis=-1), 1, atol=1e-5)
    start.enter(task, run.sees, run.reads)
    learner = fusing.Matching(task)
    given = task.preprocessor.tokenizer, start.SIDE, 1, 0
    data = fusing.batches(run.shown, converter, *given)
    seen = run.rows, run.known, converter, *given[1:]
    read = run.told, given[0], 1, 0, run.words
    stages = [
        (run.sees, seeing.batches(run.shown, *seen)),
        (run.reads, reading.batches(run.shown, *read)),
        (learner, data),
    ]
    for stage, batches in stages:
        stage.compile(keras.optimizers.Adam(1e-4), run_eagerly=True)
        losses = stage.fit(batches, epochs=3, verbose=0).history["loss"]
        assert losses[2] < losses[0]
    x, y = data[0]
    scores = array(learner(x)[0])
    # The task computes the same scores.
    features = {
        "images": x["images"][x["image_rows"]],
        "token_ids": x["token_ids"][x["text_rows"]],
        "padding_mask": x["padding_mask"][x["text_rows"]],
    }
    logits = task.predict_features(features)
    assert np.abs(logits[:, 1] - logits[:, 0] - scores).max() < 1e-3


def test_compared_fusions_differ_in_what_they_read_alone(
    run, tmp_path, monkeypatch
):
    compared = claim.Claim(run)
    changed, weights = compared.equal_variants()
    sizes = np.array(list(weights.values()))
    assert np.ptp(sizes) < 0.001 * sizes.min()
    monkeypatch.setattr(claim, "STEPS", 1)
    monkeypatch.setattr(fusing, "GROUPS", 6)
    start.enter(run.task, run.sees, run.reads)
    meter = compared.new_task(changed["METER"])
    for side in ("image_projections", "text_projections"):
        kernels = [
            array(getattr(task.backbone.fusion, side)[-1].kernel)
            for task in (run.task, meter)
        ]
        # What the highest states say enters both alike.
        named = [kernel[:, : len(NAMES)].ravel() for kernel in kernels]
        assert np.corrcoef(named)[0, 1] > 0.9999
    assert meter.backbone.fusion.count_params() == weights["METER"]
    learned = compared.learn(changed["METER"], 1, 0, tmp_path)
    drawn = [world().draw(scene, start.SIDE) for _, _, scene, _ in rows(1)]
    texts = ["an owl and a bus"] * len(drawn)
    found = claim.Scores({"before": meter, "after": learned})(drawn, texts)
    assert np.abs(found["before"] - found["after"]).max() > 0.01
    for name in ("image_encoder", "text_encoder"):
        before, after = (getattr(t.backbone, name) for t in (run.task, learned))
        assert_same_weights(before, after)


def test_a_gain_is_that_of_the_same_seeds_and_lists(tmp_path):
    (tmp_path / "weights.json").write_text(
        json.dumps(dict.fromkeys(claim.VARIANTS, 9))
    )
    lists = np.random.default_rng(0).random((2, 30))
    found = {
        f"{name}_{seed}": dict.fromkeys(SORTS, 50.0 + seed)
        | {"lists": (lists[seed] + 0.1 * number).tolist()}
        for number, name in enumerate(claim.VARIANTS)
        for seed in range(2)
    }
    (tmp_path / "test.json").write_text(json.dumps(found))
    meter = claim.table(tmp_path)[1]
    assert meter[:5] == ("test", "METER", 9, 2, "50.5 ± 0.7")
    assert meter[-1] == "+0.200 (+0.200 to +0.200)"


def test_the_preset_knows_what_its_vectors_do_not():
    """On drawings of the package, in forms that training never saw."""
    folder = PRESETS[release.NAME].path.parent / "examples"
    shown = json.loads((folder / "examples.json").read_text())["pictures"]
    drawn = World(
        [
            Thing(
                text.split(" ", 1)[1],
                {"me": np.asarray(Image.open(folder / file).convert("RGBA"))},
            )
            for file, text in shown
        ],
        "validation",
    )
    task = kbt.BridgeTowerRetrieval.from_preset(release.NAME)
    found = score.of_pairs(score.Scores(task), drawn, score.pairs(drawn, 25))
    right = {s: found["fusion"][s] - found["vectors"][s] for s in SORTS}
    for sort in ("side", "above", "size", "color", "ground"):
        assert found["fusion"][sort] >= 80 and right[sort] >= 10
    assert found["fusion"]["thing"] >= found["vectors"]["thing"]
