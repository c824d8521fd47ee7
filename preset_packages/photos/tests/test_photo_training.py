"""Training of the photo presets, at a small size."""

import keras
import numpy as np
import pytest
import tiny_photos
from builders import LONG_ELSEWHERE
from builders import array
from keras_bridgetower_photos.training import deepening
from keras_bridgetower_photos.training import lists
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import swapping
from keras_bridgetower_photos.training.asking import ask
from keras_bridgetower_photos.training.batches import CAPTIONS
from keras_bridgetower_photos.training.batches import MOST_HIDDEN
from keras_bridgetower_photos.training.batches import OUTLIERS
from keras_bridgetower_photos.training.batches import SCENES
from keras_bridgetower_photos.training.batches import Batches
from keras_bridgetower_photos.training.classes import Class
from keras_bridgetower_photos.training.fusing import Fusion
from keras_bridgetower_photos.training.fusing import Questions
from keras_bridgetower_photos.training.lists import Lists
from keras_bridgetower_photos.training.pools import Pool
from keras_bridgetower_photos.training.swapping import Swaps
from keras_bridgetower_photos.training.things import Thing

import keras_bridgetower as kbt
from keras_bridgetower.models.fusion import CrossModalEncoder

NOUNS = [f"noun{i}" for i in range(100, 120)]
ANSWERS = ["yes", "no", "cat", "car", *NOUNS]
SPECIAL = tiny_photos.SPECIAL
APART = {("cat", "car"), ("car", "cat")}
pytestmark = LONG_ELSEWHERE


def shown(noun, *names, kind="bird", **others):
    nothing = dict.fromkeys(Thing._fields, "")
    given = {"noun": noun, "name": noun, "names": names, "kind": kind}
    return Thing(**nothing | given | others)


def called(*names, daily=(), kind="", meaning=None):
    return Class(names, daily, kind, meaning or f"is {names[0]}")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_photos.tokenizer()


@pytest.fixture
def batches(tmp_path, tokenizer):
    pool = Pool(tiny_photos.write_pool(tmp_path))
    vectors = np.random.default_rng(1).normal(size=(len(pool.rows), 4))
    names = [called(noun, meaning="a") for noun in NOUNS]
    things = [shown("cat", kind="mammal"), shown("car", kind="vehicle")]
    swaps = Swaps(
        names,
        np.random.default_rng(2).normal(size=(20, 4)),
        things,
        np.eye(20)[[3, 8]],
    )
    kept = [shown(noun, split="train") for noun in ["cat", "car"] * lists.LISTS]
    of_lists = Lists(kept, pool.states, vectors, APART, swaps)
    given = tokenizer, ANSWERS, APART, swaps, pool, of_lists
    return Batches(pool, vectors, *given)


def new_tasks(tokenizer):
    encoders = tiny_photos.encoders(tokenizer.vocabulary_size())
    given = *encoders, tokenizer, ANSWERS
    return model.new_tasks(*given, names=None, **tiny_photos.FUSION)


def test_half_of_a_batch_is_like_the_other_half_and_apart(batches):
    for rows in batches.order(np.random.default_rng(0)):
        first, second = rows[: SCENES // 2], rows[SCENES // 2 :]
        assert (first % 2 != second % 2).all()  # Cats beside cars.
        assert np.array_equal(
            batches.are_apart(rows, rows), rows[:, None] % 2 != rows % 2
        )


def test_a_caption_is_there_again_with_hidden_tokens(batches, tokenizer):
    rng = np.random.default_rng(0)
    rows = batches.order(rng)[0]
    x, y = batches.make(rows, rng)
    said, masked = x["token_ids"][:CAPTIONS], x["token_ids"][-CAPTIONS:]
    hidden = masked == tokenizer.mask_token_id
    assert (hidden.sum(1) >= 1).all() and (hidden.sum(1) <= MOST_HIDDEN).all()
    assert np.array_equal(said[~hidden], masked[~hidden])
    for row in range(CAPTIONS):
        count = hidden[row].sum()
        places = x["places"][row, :count]
        assert np.array_equal(said[row, places], y["mlm"][row, :count])
        assert (y["mlm"][row, count:] == -100).all()


def test_answers_that_are_right_as_well_count(batches):
    rng = np.random.default_rng(0)
    rows = np.arange(SCENES)
    _, y = batches.make(rows, rng)
    # Nothing is right of pictures that show nothing.
    assert not y["vqa"][-OUTLIERS:].any()
    # "red" is no answer of the model. Things are exchanged for nouns.
    scores = y["vqa"][:-OUTLIERS]
    known = scores[scores[:, 4:].sum(1) == 0, :4]
    assert (scores[scores[:, 4:].sum(1) > 0].sum(1) == 1).all()
    assert {tuple(scores) for scores in known.tolist()} == {
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (1, 0, 1, 0),
        (1, 0, 0, 1),
    }


@pytest.mark.parametrize(
    ("learner", "learning"), [(Fusion, (True,) * 4), (Questions, (True, True))]
)
def test_a_step_trains_the_fusion_and_leaves_the_towers(
    batches, tokenizer, learner, learning
):
    vqa, pairs = new_tasks(tokenizer)
    learner = learner(vqa, pairs)
    learner.compile(keras.optimizers.Adam(1e-2))
    rng = np.random.default_rng(0)
    x, y = batches.make(batches.order(rng)[0], rng)
    parts = [
        *(vqa.backbone.text_tower, vqa.backbone.image_tower),
        *(pairs.heads["itc"], vqa.backbone.fusion),
        *(vqa.heads["vqa"], pairs.heads["itm"], pairs.heads["mlm"]),
    ]
    before = [part.get_weights() for part in parts]
    losses = [
        learner.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(4)
    ]
    assert losses[-1] < losses[0]
    changed = [
        not all(map(np.array_equal, old, part.get_weights()))
        for old, part in zip(before, parts, strict=True)
    ]
    assert changed == [False] * 3 + [*learning] + [False] * (4 - len(learning))


def test_a_layer_more_begins_as_the_identity(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(deepening, "_enlarge", lambda *given: None)
    tasks = new_tasks(tokenizer)
    pool = Pool(tiny_photos.write_pool(tmp_path))
    given = model.text_features(tokenizer, ["a photo of car"] * 2)
    found = []
    for vqa, pairs in (tasks, deepening.deepen(*tasks, pool)):
        assert vqa.backbone is pairs.backbone
        found.append(
            pairs.backbone.fusion(
                pairs.backbone.text_tower(given),
                [x[:2].astype("float32") for x in pool.states],
                padding_mask=given["padding_mask"],
            )["pooled"]
        )
    assert pairs.backbone.fusion.taps == (-3, -2, -1, None, None)
    assert np.allclose(*map(array, found), atol=1e-4)


def test_colors_and_places_are_as_large_as_said():
    rng = np.random.default_rng(0)
    layer = keras.layers.Dense(8)
    x = rng.normal(size=(50, 4, 20))
    layer.build(x.shape)
    old = array(layer.kernel)
    mean, size = (x @ old).mean((0, 1)), (x @ old).std((0, 1)).mean()
    deepening._enlarge(layer, x, rng)
    new = array(layer.kernel)
    assert np.array_equal(old[:7], new[:7])
    added = (x[..., 7:10] @ (new - old)[7:10]).std((0, 1)).mean()
    assert added == pytest.approx(0.33 * size, rel=1e-3)
    # Colors move no mean.
    said = x @ new + array(layer.bias) - x[..., 10:] @ (new - old)[10:]
    assert np.allclose(said.mean((0, 1)), mean, atol=1e-5)


def test_with_fewer_words_a_task_says_the_same(tokenizer):
    words = [w for w in tokenizer.get_vocabulary() if w != "cat"]
    fewer = kbt.BridgeTowerBertTokenizer(
        words, sequence_length=tokenizer.sequence_length
    )
    told, tasks = [], [new_tasks(known)[1] for known in (fewer, tokenizer)]
    model.take_weights(*tasks)
    for task in tasks:
        known = task.preprocessor.tokenizer
        given = model.text_features(known, ["a photo of car"])
        states = task.backbone.text_tower.predict_on_batch(given)[-1]
        logits = task.heads["mlm"](np.ones((1, 1, 12), "float32"))
        told.append((np.asarray(states), array(logits)))
    (few, few_logits), (all_states, all_logits) = told
    assert np.allclose(few, all_states, atol=1e-6)
    place = tokenizer.get_vocabulary().index("cat")
    assert np.allclose(few_logits, np.delete(all_logits, place, -1), atol=1e-6)


@pytest.fixture
def swaps(monkeypatch):
    """Four classes; a kite looks like a hawk, and a radio like an oven."""
    monkeypatch.setattr(swapping, "NEAR", 2)
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    names = [
        *(called("owl", kind="bird"), called("hawk", kind="bird")),
        *(called("toaster"), called("oven", kind="device")),
    ]
    things = [
        *(shown("tawny owl", "night bird"), shown("kite")),
        *(shown("toaster", kind="device"), shown("radio", kind="device")),
    ]
    return Swaps(names, vectors, things, np.eye(4))


def test_exchanged_classes_keep_what_is_alike(swaps):
    states = np.tile([0.7, 0.3, 0.0, 0.0, 5.0], (3, 1)).astype("float32")
    seen = set()
    for seed in range(20):
        swap = swaps.draw(["tawny owl"], np.random.default_rng(seed))
        moved = swap.states(states)
        first = moved[0, :4].argmax()
        assert swap.classes(["tawny owl"]) == [first]
        # What is alike comes second.
        second = np.argsort(moved[0, :4])[-2]
        assert {first, second} in ({0, 1}, {2, 3})
        seen.add(int(first))
        assert (moved[:, 4] == 5.0).all()
        assert np.allclose(moved.sum(-1), states.sum(-1))
    assert seen == {0, 1, 2, 3}


@pytest.fixture
def swap(swaps):
    """The owl is a toaster then, and the kite an oven."""
    return swapping.Swap(swaps, np.array([2, 3, 0, 1]))


NAMED = ["tawny owl", "kite"]
# A text that names its own meaning, or that of all others that it fits, is said
# of nothing new.
TEXTS = {
    "The tawny owl is left of a kite": "The toaster is left of an oven",
    "Tawny owls and one radio": "Toasters and one hawk",
    "a night bird": None,
    "a bird": None,
    "a red thing": None,
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_said_of_the_new_things(swap, text):
    rng = np.random.default_rng(0)
    assert swap.rename(text, NAMED, rng) == TEXTS[text]


@pytest.mark.parametrize(
    "text, answer, sort, told",
    [
        ("what is it?", "tawny owl", "noun", ("what is it?", "toaster")),
        ("what bird is it?", "kite", "noun", ("what device is it?", "oven")),
        # No kind is known of toasters, and two things are birds.
        ("what bird is it?", "tawny owl", "noun", None),
        ("what kind is it?", "bird", "kind", None),
    ],
)
def test_answers_name_the_new_things(swap, text, answer, sort, told):
    rng = np.random.default_rng(1)
    found = ask(swap, (text, answer, [], sort), NAMED, rng)
    assert found == (told and (*told, (told[1],), sort))


def test_a_list_has_the_right_picture_first_and_its_new_name(
    swaps, monkeypatch
):
    monkeypatch.setattr(lists, "LISTS", 3)
    monkeypatch.setattr(lists, "WRONG", 2)
    rng = np.random.default_rng(0)
    states = np.eye(6)[[0, 1, 2, 3, 0, 1]][:, None]
    things = [
        *(shown(noun, split="train") for noun in ("owl", "hawk", "toaster")),
        *(shown(noun, split="test") for noun in ("lamp", "bus", "car")),
    ]
    apart = {(a.noun, b.noun) for a in things for b in things if a != b}
    swaps.class_of = {"owl": 0, "hawk": 1, "toaster": 2}
    drawer = Lists(things, [states], states[:, 0], apart, swaps)
    seen = set()
    for _ in range(12):
        texts, (listed,) = drawer.draw(rng)
        classes = listed[:, 0].argmax(1).reshape(1 + lists.WRONG, -1)
        for text, (right, *wrong) in zip(texts, classes.T, strict=True):
            (name,) = swaps.known[right].names
            seen.add(name)
            assert name in text and right not in wrong
    assert seen == {"owl", "hawk", "toaster", "oven"}


def test_the_fusion_begins_in_the_space_of_texts_and_pictures():
    rng = np.random.default_rng(0)
    told = rng.normal(size=(9, 10)).astype("float32")
    seen = 5.0 + rng.normal(size=(30, 12)).astype("float32")
    seen[:, -10:] = coordinates = rng.uniform(-1, 1, (30, 10))
    fusion = CrossModalEncoder(8, 2, 2, projections="per_layer")
    fusion.build([(1, 3, 10)] * 2, [(1, 5, 12)] * 2)
    head = keras.Model()
    head.text_dense, head.image_dense = (keras.layers.Dense(9) for _ in "ab")
    head.text_dense.build(told.shape)
    head.image_dense.build(seen.shape)
    model.enter_space(fusion, head, told, seen)
    for states, dense, projection in (
        (told, head.text_dense, fusion.text_projections[-1]),
        (seen, head.image_dense, fusion.image_projections[-1]),
    ):
        space, found = (
            array(layer(states))[:, :8] for layer in (dense, projection)
        )
        space -= space.mean(0)
        # All but the last two of both heads.
        named, placed = [0, 1, 4, 5], [2, 3, 6, 7]
        expected = model.SPREAD * space / space.std()
        assert np.allclose(found[:, named], expected[:, named], atol=1e-4)
        where = states is seen and model.PLACED * coordinates[:, [0, 1, 0, 1]]
        assert np.allclose(found[:, placed], where, atol=1e-4)
