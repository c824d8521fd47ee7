"""Scenes of photographed things, and the training of their fusion."""

import json
import types

import keras
import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import claim as drawings_claim
from keras_bridgetower_drawings.training.scenes import reading
from keras_bridgetower_drawings.training.scenes.scenes import COLORS
from keras_bridgetower_drawings.training.scenes.scenes import GROUNDS
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.seeing import at_places
from keras_bridgetower_drawings.training.scenes.things import Thing
from keras_bridgetower_photos.training import pools
from keras_bridgetower_photos.training.reranker import cards
from keras_bridgetower_photos.training.reranker import claim
from keras_bridgetower_photos.training.reranker import fusing
from keras_bridgetower_photos.training.reranker import judging
from keras_bridgetower_photos.training.reranker import score
from keras_bridgetower_photos.training.reranker import score_judging
from keras_bridgetower_photos.training.reranker import seeing
from keras_bridgetower_photos.training.reranker import start
from keras_bridgetower_photos.training.reranker import train
from keras_bridgetower_photos.training.reranker.names import Names
from keras_bridgetower_photos.training.reranker.world import World
from keras_bridgetower_photos.training.reranker.world import scene_of

import keras_bridgetower as kbt

pytestmark = FASTEST
SIDE = 48  # Of pictures with 12 x 12 places.


@pytest.fixture
def disks(tmp_path):
    return tiny_photos.disks(tmp_path)


def test_scenes_show_what_they_tell(disks):
    world, rng = World(disks, "training"), np.random.default_rng(0)
    hues = {"red": 0, "yellow": 1 / 6, "green": 1 / 3, "blue": 2 / 3}
    for sort in SORTS:
        scene = world.scene(rng, sort)
        other = world.near_miss(scene, sort, rng)
        assert scene_of(json.loads(json.dumps(scene))) == scene
        drawn = world.draw(scene, 96)
        assert (drawn == world.draw(scene, 96)).all()
        assert (drawn != world.draw(other, 96)).any()
        for one in scene.things:
            red, green, blue = drawn[int(96 * one.y), int(96 * one.x)] / 255.0
            if one.color in hues:
                found = keras.ops.image.rgb_to_hsv(
                    np.array([[[red, green, blue]]], "float32")
                )[0, 0, 0]
                far = abs(float(found) - hues[one.color])
                assert min(far, 1 - far) < 0.1
        if scene.ground:
            corner = drawn[0, 0] / np.array(GROUNDS[scene.ground])
            assert corner.min() > 0.85 and np.ptp(corner) < 0.1
        assert (scene.pattern in world.grounds) == (not scene.ground)


def test_no_scene_of_training_shows_what_is_held_out(disks):
    worlds = [World(disks, part) for part in ("training", "test")]
    shown = [{t.id for ts in w.things.values() for t in ts} for w in worlds]
    assert not shown[0] & shown[1]
    assert not worlds[0].grounds.keys() & worlds[1].grounds.keys()


def test_what_places_say_is_linear_in_their_state(disks):
    rng = np.random.default_rng(0)
    state = rng.normal(3, 5, (4, 145, 7)).astype("float32")
    learner = seeing.Seeing(state)
    paints, wheres = map(keras.ops.convert_to_numpy, learner(state))
    kernel, bias = learner.columns()
    told = state[:, 1:] @ kernel + bias
    assert np.allclose(told, np.concatenate([wheres, paints], -1), atol=1e-4)
    scene = World(disks, "training").scene(rng, "color")
    _, y = at_places([scene], 12)
    for one in scene.things:
        place = int(12 * one.y) * 12 + int(12 * one.x)
        assert np.allclose(y["where"][0, place, :3], (one.x, one.y, one.size))
        assert y["paint"][0, place] == 1 + list(COLORS).index(one.color)


@pytest.fixture
def run(disks, tmp_path):
    """What `train.Run` has, with a tiny image encoder and few names."""
    rng = np.random.default_rng(0)
    world = World(disks, "training")
    encoder, _ = tiny_photos.encoders(30, SIDE)
    words = [*world.every, *(f"{name} house" for name in world.every)]
    vectors = rng.normal(size=(len(words), 128)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    classes = rng.normal(size=(tiny_photos.CLASSES, 128)).astype("float32")
    names = Names(tuple(words), vectors, classes, ())
    task = start.new_task(encoder, names)
    convert = task.preprocessor.image_converter
    rows, drawn = [], []
    for group in range(2 * len(SORTS)):
        sort = SORTS[group % len(SORTS)]
        scene = world.scene(rng, sort)
        for one in (scene, world.near_miss(scene, sort, rng)):
            rows.append({"sort": sort, "scene": one})
            drawn.append(world.draw(one, SIDE))
    states = task.backbone.image_tower(convert(np.stack(drawn)))
    states = [keras.ops.convert_to_numpy(x) for x in states]
    pools.write(tmp_path / "pools" / "train_0", states, rows)
    nouns = [*words, *("" for _ in range(tiny_photos.CLASSES - len(words)))]
    groups = fusing.Groups(tmp_path / "pools", nouns, classes)
    sample = groups.states([(0, row) for row in range(len(rows))])
    assert all((a == b).all() for a, b in zip(sample, states, strict=True))
    assert groups.class_of.keys() <= {*world.every}
    # An untrained classifier may take all things for one.
    groups.class_of = {name: row for row, name in enumerate(world.every)}
    return types.SimpleNamespace(
        folder=tmp_path,
        seed=0,
        every=world.every,
        encoder=encoder,
        names=names,
        nouns=nouns,
        task=task,
        rows=rows,
        drawn=drawn,
        groups=groups,
        vectors=classes,
        sample=sample,
        sees=seeing.Seeing(sample[0]),
        reads=reading.Reading(task, vectors, vectors),
    )


def test_the_stages_train_the_task_that_scores(run, disks, tmp_path):
    rng, task, sample = np.random.default_rng(1), run.task, run.sample
    rows, groups, nouns = run.rows, run.groups, run.nouns
    both, called = [scene_of(row["scene"]) for row in rows[:2]], None
    while called is None or called is both:
        called, moved = groups.exchange(both, sample[1][:2], rng)
    for old, new in zip(both, called, strict=True):
        for one, other in zip(old.things, new.things, strict=True):
            assert one == other._replace(name=one.name)
            # The class that told of the thing tells of what it is called now.
            own, now = groups.class_of[one.name], nouns.index(other.name)
            assert (moved[..., now] == sample[1][:2][..., own]).all()
    start.enter(task, run.sees, run.reads, sample)
    start.know_drawings(task)
    matching = fusing.Matching(task)
    tokenizer = task.preprocessor.tokenizer
    told = [Thing(name, {"words": None}) for name in run.names.words]
    data = fusing.batches(groups, tokenizer, 1, 0)
    for learner, batches in (
        (run.sees, seeing.batches(groups, 1, 0)),
        (run.reads, reading.batches(told, run.names.rows, tokenizer, 1, 0)),
        (matching, data),
    ):
        learner.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
        losses = learner.fit(batches, epochs=3, verbose=0).history["loss"]
        assert losses[2] < losses[0]
    x, _ = data[0]
    own = keras.ops.convert_to_numpy(matching(x)[0])
    logits = task.predict_features(
        {
            "images": np.concatenate(x["images"], -1)[x["image_rows"]],
            "token_ids": x["token_ids"][x["text_rows"]],
            "padding_mask": x["padding_mask"][x["text_rows"]],
        }
    )
    assert np.abs(logits[:, 1] - logits[:, 0] - own).max() < 1e-3
    known = kbt.BridgeTowerContrastive.from_preset(
        "bridgetower_tiny_emoji_contrastive"
    )
    given = tmp_path / "states", task, known, disks, "test"
    found = score.tables(*given, "validation", counts=(2, 2))
    assert set(found["pairs"]["fusion"]) == set(SORTS)
    assert set(found["lists"]) == {
        *("fusion", "words", "vectors", "released vectors")
    }


def test_compared_fusions_score_kept_states_as_pictures(run, monkeypatch):
    monkeypatch.setattr(drawings_claim, "STEPS", 1)
    monkeypatch.setattr(train, "STAGES", {"seeing": (1, 1e-3)})
    compared = claim.Claim(run)
    changed, weights = compared.equal_variants()
    sizes = np.array(list(weights.values()))
    assert np.ptp(sizes) < 0.001 * sizes.min()
    learned = {
        name: compared.learn(changed[name], 1, 0, run.folder / name)
        for name in ("METER", "BridgeTower")
    }
    pictures, texts = run.drawn[:5], ["a red owl", "a bus"] * 2 + ["an owl"]
    states = run.task.keep_states(run.folder / "states", images=pictures)
    found = claim.Scores(learned, states)(np.arange(5), texts)
    for name, task in learned.items():
        assert task.backbone.fusion.count_params() == weights[name]
        assert np.abs(found[name] - task.score(pictures, texts)).max() < 1e-3
    assert np.abs(found["METER"] - found["BridgeTower"]).max() > 0.01


def carded(world, rng, side, count=2):
    """Return the rows and pictures of groups under cards, of each sort."""
    rows, drawn = [], []
    while len(rows) < count * len(SORTS) * cards.PICTURES:
        sort = SORTS[len(rows) // cards.PICTURES % len(SORTS)]
        for scene, card in cards.group(world, rng, sort) or ():
            rows.append({"sort": sort, "scene": scene, "card": card})
            drawn.append(cards.shown(world, scene, card, side))
    return rows, drawn


def test_judgments_are_true(disks):
    """Of captions by what is seen and hidden, of statements by their halves."""
    world, rng = World(disks, "training"), np.random.default_rng(0)
    rows, drawn = carded(world, rng, 96)
    for first in range(0, len(rows), cards.PICTURES):
        sort, group = rows[first]["sort"], rows[first : first + cards.PICTURES]
        scenes = [row["scene"] for row in group]
        for row, picture in zip(group, drawn[first:], strict=False):
            bare = world.draw(row["scene"], 96)
            assert (row["card"] is None) == (picture == bare).all()
        told = captions.captions(scenes[0], sort, "training", rng, scenes[1])
        labels = []
        for text, picture, label in judging.hypotheses(sort, rng):
            text, row = told[text], group[picture]
            seen = row["card"] is None or not any(
                max(abs(row["card"][0] - one.x), abs(row["card"][1] - one.y))
                < 0.05
                for one in row["scene"].things
                if one.name in text.names
            )
            holds = text.facts <= row["scene"].facts
            labels.append(judging.LABELS[label])
            if labels[-1] == "entailment":
                assert holds and seen
            elif labels[-1] == "contradiction":
                assert not holds
            else:
                assert row["card"] is not None
        assert sorted(labels) == sorted(2 * judging.LABELS)
        texts, pairs, halves, kinds, true = judging.statements(
            scenes[:2], told, "training", rng
        )
        for text, pair, half, kind, whole in zip(
            texts, pairs, halves, kinds, true, strict=True
        ):
            caption = next(one for one in told if one.text in text)
            found = [caption.facts <= scenes[i].facts for i in pair]
            assert found == list(half)
            name = list(judging.KINDS)[kind]
            expected = {
                "both": sum(found) == 2,
                "one": sum(found) == 1,
                "neither": sum(found) == 0,
                "some": sum(found) > 0,
                "left": found[0],
                "right": found[1],
            }
            assert expected[name] == whole


def test_judging_trains_the_tasks_that_are_saved(run, disks):
    rng, task = np.random.default_rng(1), run.task
    start.enter(task, run.sees, run.reads, run.sample)
    start.know_drawings(task)
    given = task.preprocessor.tokenizer, task.preprocessor.image_converter
    entailment = kbt.BridgeTowerEntailment(
        task.backbone, kbt.BridgeTowerEntailmentPreprocessor(*given)
    )
    nlvr2 = kbt.BridgeTowerNLVR2(
        task.backbone, kbt.BridgeTowerNLVR2Preprocessor(*given)
    )
    rows, drawn = carded(World(disks, "training"), rng, SIDE)
    states = task.backbone.image_tower(given[1](np.stack(drawn)))
    states = [keras.ops.convert_to_numpy(x) for x in states]
    pools.write(run.folder / "judged" / "pool_0", states, rows)
    groups = judging.Groups(run.folder / "judged", run.nouns, run.vectors)
    groups.class_of = run.groups.class_of
    learner = judging.Judging(task, entailment, nlvr2)
    data = judging.batches(groups, given[0], 1, 0)
    learner.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    losses = learner.fit(data, epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[0]
    x, y = data[0]
    *_, judged, compared, _ = map(keras.ops.convert_to_numpy, learner(x))
    joined = np.concatenate(x["images"], -1)

    def told(texts):
        return {k: x[k][texts] for k in ("token_ids", "padding_mask")}

    of = {"images": joined[x["judged_images"]]} | told(x["judged_texts"])
    assert np.abs(entailment.predict_features(of) - judged).max() < 1e-3
    both = joined[np.stack([x["left"], x["right"]], 1)]
    of = {"images": both} | told(x["pair_texts"])
    assert np.abs(nlvr2.predict_features(of) - compared).max() < 1e-3
    held = World(disks, "test")
    rows, _ = carded(held, rng, SIDE, 4)
    found = score_judging.tables(entailment, nlvr2, held, rows)
    assert set(found["captions"]) == {"fusion", "card alone"}
    assert 40 < found["captions"]["card alone"]["all"] < 60
    assert set(found["statements"]["fusion"]) >= set(judging.KINDS)
