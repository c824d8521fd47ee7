"""Scenes of photographs: what is said and asked of them is true."""

import collections
import colorsys
import re

import numpy as np
import pytest
from builders import FASTEST
from keras_bridgetower_photos.training import blind
from keras_bridgetower_photos.training import captions
from keras_bridgetower_photos.training import painting
from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training import scenes
from keras_bridgetower_photos.training import things
from PIL import ImageColor
from tiny_photos import DISKS
from tiny_photos import PAINTS
from tiny_photos import disks

pytestmark = FASTEST
NUMBERS = {"two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return disks(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def maker(world):
    return scenes.Scenes(world, "train", side=112)


def drawn(maker, number, sort=None, seed=1):
    rng = np.random.default_rng(seed)
    return [maker.draw(rng, sort) for _ in range(number)]


def seen(scene, color):
    """Return where a picture has the color of a disk."""
    pixels = scene.picture.astype(float)
    dark = np.array(PAINTS[color]) < 100
    bright = pixels[..., ~dark].min(-1)
    return bright > 1.8 * pixels[..., dark].max(-1) + 12


@pytest.mark.parametrize("sort", ["alone", "beside"])
def test_boxes_are_around_what_is_seen(maker, sort):
    """In the same scenes for the same seed."""
    found = 0
    both = drawn(maker, 50, sort), drawn(maker, 50, sort)
    for scene, again in zip(*both, strict=True):
        np.testing.assert_array_equal(scene.picture, again.picture)
        colors = [placed.thing.color for placed in scene.placed]
        # On gray photographs, with things of unlike colors.
        if not scene.background or len({*colors}) < len(colors):
            continue
        order = [placed.middle for placed in scene.placed]
        assert order == sorted(order)
        for placed in scene.placed:
            rows, columns = np.nonzero(seen(scene, placed.thing.color))
            box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            np.testing.assert_allclose(placed.box, box, atol=2)
            found += 1
    assert found > 10


def test_splits_never_mix(world):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        maker = scenes.Scenes(world, split, side=64)
        for scene in drawn(maker, 150):
            shown = [placed.thing for placed in scene.placed]
            shown += [scene.background] if scene.background else []
            assert {one.split for one in shown} == {split}
            said = captions.captions(scene, rng)
            said.append(captions.wrong_caption(scene, rng))
            said += [q.text for q in questions.questions(scene, rng)]
            if split == "train":
                assert not any("test " in text for text in said)


def read(caption, scene):
    """Return what a caption says that is not so: a set of respects."""
    text = re.sub("[^a-z ]", " ", caption.lower().replace("grey", "gray"))
    spoken = text.split()
    wrong = set()
    shown = [placed.thing for placed in scene.placed]
    nouns = {thing.noun for thing in shown}
    for noun, _, _ in DISKS:
        if {noun, f"{noun}s"} & set(spoken) and noun not in nouns:
            wrong.add("noun")
    paper = re.search(r"(\w+) (?:background|paper|ground|surface)", text)
    paper = paper or re.search(r"background is (\w+)", text)
    adjectives = {f"{o.color} {o.noun}" for o in shown}
    for color, noun in re.findall(r"(\w+) (\w+)", text) + re.findall(
        r"\w+ (\w+) (\w+)", text
    ):
        named = noun.rstrip("s") in nouns
        if color in things.COLORS and named:
            if f"{color} {noun.rstrip('s')}" not in adjectives:
                wrong.add("color")
    if paper and paper[1] in things.COLORS and paper[1] != scene.paper:
        wrong.add("paper")
    for word, number in NUMBERS.items():
        if word in spoken and number != len(scene.placed):
            wrong.add("count")
    for place in ("dam", "castle", "windmill"):
        own = scene.background and scene.background.place
        if place in spoken and place != (own or shown[0].noun):
            wrong.add("place")
    return wrong


def test_captions_are_true_and_wrong_ones_false_in_one_respect(maker):
    rng = np.random.default_rng(4)
    respects = collections.Counter()
    for scene in drawn(maker, 400):
        for caption in captions.captions(scene, rng):
            assert read(caption, scene) == set(), caption
        caption = captions.wrong_caption(scene, rng)
        wrong = read(caption, scene)
        assert len(wrong) <= 1, caption
        respects.update(wrong or {"relation"})
    assert {"noun", "color", "paper", "count", "place"} < {*respects}


def first_is_left(text):
    """Read which of two things is said to be on the left."""
    if "its right" in text or "left of" in text or "left and" in text:
        first = True
    elif "its left" in text or "right of" in text:
        first = False
    else:
        first = text.index("left") < text.index("right")
    return first != text.lower().startswith("to the ")


def nouns_in_order(text):
    return re.findall("|".join(disk[0] for disk in DISKS), text)


@pytest.mark.parametrize("exchanged", [False, True])
def test_what_is_said_to_be_on_the_left(maker, exchanged):
    rng = np.random.default_rng(5)
    for scene in drawn(maker, 80, "beside"):
        told = scene
        if exchanged:
            told = captions._exchanged(scene, rng)
        text = captions.tell(told, {"noun", "position"}, rng)
        first, second = nouns_in_order(text)[:2]
        x = {placed.thing.noun: placed.box[0] for placed in scene.placed}
        left = x[first] < x[second]
        assert (left == first_is_left(text)) != exchanged, text


def test_yes_and_no_are_equally_frequent(maker):
    rng = np.random.default_rng(7)
    every = collections.Counter(
        question.answer
        for scene in drawn(maker, 480)
        for question in questions.questions(scene, rng)
        if question.sort.startswith("is ")
    )
    assert every.total() > 1000
    assert 0.45 < every["yes"] / every.total() < 0.55


def test_answers_are_known_and_right(world, maker):
    known = questions.answers(world)
    assert len(set(known)) == len(known)
    assert not any("test" in answer for answer in known)
    other = scenes.Scenes(world, "test", side=64)
    rng = np.random.default_rng(8)
    sorts = set()
    for scene in drawn(other, 100):
        for question in questions.questions(scene, rng, set(known)):
            assert question.answer in known
            assert set(question.options) <= set(known)
            assert not (question.sort == "noun" and "test" in question.answer)
            sorts.add(question.sort)
    assert {"kind", "broad", "color", "is noun", "place"} <= sorts


def test_blind_scores_are_those_of_the_most_frequent_answers():
    def ask(text, answer, wording, **more):
        return questions.Question(text, answer, "s", wording=wording, **more)

    train = [ask("a?", "yes", "w")] * 3 + [ask("b?", "no", "v")] * 2
    train.append(ask("x or z?", "x", "o", options=("x", "z")))
    test = [
        ask("B", "no", "v"),
        ask("c?", "maybe", "v", other_answers=("no",)),
        ask("c?", "no", "u"),
        ask("a?", "yes", "w"),
        ask("x or y?", "y", "u", options=("y", "x")),
        ask("x or z?", "x", "u", options=("z", "x")),
        ask("z or x?", "x", "u", options=("z", "x")),
        ask("z or y?", "yes", "u"),
    ]
    scores = blind.scores(train, test)
    expected = {"sort": 2, "wording": 4, "text": 5, "options": 6}
    assert scores == {way: 100 * n / 8 for way, n in expected.items()}


# The least and the most of the value of a shade.
GRAYS = {"black": (0.0, 0.3), "gray": (0.3, 0.75), "white": (0.75, 1.0)}


def hue_apart(color, pixel):
    """Return the degrees between a pixel and a color of CSS."""
    name = {"brown": "saddlebrown", "purple": "darkorchid"}.get(color, color)
    named = np.array(ImageColor.getrgb(name)) / 255
    one, other = (360 * colorsys.rgb_to_hsv(*x)[0] for x in (named, pixel))
    apart = abs(one - other)
    return min(apart, 360 - apart)


def test_painted_things_look_as_they_are_called(world):
    maker = scenes.Scenes(world, "train", side=112, painted=1.0)
    rng, natural = np.random.default_rng(2), {n: c for n, _, c in DISKS}
    found = set()
    for _ in range(300):
        scene = maker.draw(rng, "alone")
        (placed,) = scene.placed
        thing, (left, top, right, bottom) = placed
        if not thing.paint:
            assert thing.color == natural[thing.noun]
            continue
        assert thing.color == thing.paint != natural[thing.noun]
        found.add(thing.color)
        pixel = scene.picture[(top + bottom) // 2, (left + right) // 2] / 255
        _, saturation, value = colorsys.rgb_to_hsv(*pixel)
        if thing.color in GRAYS:
            low, high = GRAYS[thing.color]
            assert low <= value <= high and saturation * value < 0.15
        else:
            assert saturation > 0.15 and hue_apart(thing.color, pixel) < 45
        told = captions.tell(scene, {"color"}, rng)
        assert thing.color in told.replace("grey", "gray").lower()
    assert found == set(painting.PAINTS)
