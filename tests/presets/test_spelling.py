"""American and British spelling get the same answers from shipped presets."""

import itertools
import pathlib

import pytest
from builders import FASTEST
from easy_world import captions
from easy_world import entailment
from easy_world import pairs
from easy_world import pictures
from easy_world import spelling
from easy_world.scenes import load_scenes
from emoji_world import questions
from emoji_world import texts

from keras_bridgetower.tasks.by_name import open_task

pytestmark = FASTEST

DRAWINGS = sorted(
    (pathlib.Path(__file__).parents[2] / "examples/drawings").glob("*.png")
)
SENTENCES = 400
BATCH = 64


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("easy_vqa")
    return load_scenes("test")


def _each_with_each(said, images):
    """Every text with every picture."""
    return zip(*itertools.product(said, images), strict=True)


def _emoji_questions():
    said = [*questions.ASK_COLOR, "is it mostly gray?", "is this gray?"]
    return _each_with_each(said, DRAWINGS[::4])


def _emoji_captions(word):
    ways = (*texts.WAYS, *texts.NEW_WAYS)
    said = [texts.phrase(way, f"gray {word}") for way in ways]
    capital = [text.capitalize() for text in said if "<" not in text]
    return _each_with_each([*said, *capital], DRAWINGS[::16])


def _shape_questions(scenes):
    said = sorted(set(pictures.load("test").questions))
    return _each_with_each(said, list(scenes.data.images[:16]))


def _shape_captions(scenes, shape="circle"):
    words = {"size": "small", "colour": "gray", "position": "center"}
    said = [
        template.format(shape=shape, **words) for template in captions.TEMPLATES
    ]
    return _each_with_each(said, list(scenes.data.images[:32]))


def _blanks(scenes):
    """Varied captions, the last word that has one spelling hidden."""
    said, shown = [], []
    for row, text in enumerate(captions.varied_captions(scenes)[:SENTENCES]):
        words = text.split()
        one_way = [i for i, w in enumerate(words) if len(spelling.both(w)) == 1]
        if one_way:
            words[one_way[-1]] = "<mask>"
            said.append(" ".join(words))
            shown.append(scenes.data.images[row])
    return said, shown


def _hypotheses(scenes):
    made = entailment.varied_entailment(scenes, sentences=SENTENCES)
    return made.hypotheses, list(made.images(scenes))


def _statements(scenes):
    made = pairs.pairs(scenes)
    return made.sentences, list(scenes.data.images[made.image_index])


def _answers(task, said, images):
    return [a[0][0] for a in task.answer(images, said, batch_size=BATCH)]


def _nearest(task, said, images):
    shown = list({id(image): image for image in images}.values())
    vectors = task.embed(images=shown, batch_size=BATCH)
    return (task.embed(texts=said, batch_size=BATCH) @ vectors.T).argmax(1)


def _matches(task, said, images):
    return task.score(images, said, batch_size=BATCH) > 0


def _filled(task, said, images):
    filled = task.fill_mask(images, said, batch_size=BATCH)
    return [[tokens[0][0] for tokens in masks] for masks, _ in filled]


def _judged(task, said, images):
    return [found for found, _ in task.entail(images, said, batch_size=BATCH)]


def _compared(task, said, images):
    left, right = zip(*images, strict=True)
    found = task.compare(left, right, said, batch_size=BATCH)
    return [true for true, _ in found]


# (preset, task): the verb, and the texts of all templates with pictures.
CASES = {
    ("emoji_vqa", "vqa"): (_answers, lambda _: _emoji_questions()),
    ("emoji_contrastive", "contrastive"): (
        _nearest,
        lambda _: _emoji_captions("elephant"),
    ),
    ("emoji_retrieval", "retrieval"): (
        _matches,
        lambda _: _emoji_captions("elephant"),
    ),
    ("emoji_mlm", "masked_lm"): (
        _filled,
        lambda _: _emoji_captions("<mask>"),
    ),
    ("easy_vqa", "vqa"): (_answers, _shape_questions),
    ("easy_contrastive", "contrastive"): (_nearest, _shape_captions),
    ("easy_retrieval", "retrieval"): (_matches, _shape_captions),
    ("easy_pretrain", "contrastive"): (_nearest, _shape_captions),
    ("easy_pretrain", "retrieval"): (_matches, _shape_captions),
    ("easy_pretrain", "masked_lm"): (
        _filled,
        lambda scenes: _shape_captions(scenes, shape="<mask>"),
    ),
    ("easy_mlm", "masked_lm"): (_filled, _blanks),
    ("easy_entailment", "entailment"): (_judged, _hypotheses),
    ("easy_nlvr2", "nlvr2"): (_compared, _statements),
}


@pytest.mark.parametrize("preset, name", CASES)
def test_both_spellings_get_the_same_answers(preset, name, scenes):
    verb, cases = CASES[preset, name]
    task = open_task(f"bridgetower_tiny_{preset}", name)
    rows = [
        (spelling.american(text), spelling.british(text), image)
        for text, image in zip(*cases(scenes), strict=True)
    ]
    rows = [row for row in rows if row[0] != row[1]]
    american, british, images = map(list, zip(*rows, strict=True))
    found = verb(task, american, images), verb(task, british, images)
    other = {a for a, x, y in zip(american, *found, strict=True) if x != y}
    assert not other
