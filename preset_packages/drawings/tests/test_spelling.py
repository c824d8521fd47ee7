"""American and British spelling get the same answers from shipped presets."""

import itertools
import pathlib

import pytest
from builders import FASTEST
from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import pictures
from keras_bridgetower_drawings.training.easy import spelling
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import texts

from keras_bridgetower.presets.verbs import BUILT_IN
from keras_bridgetower.tasks.by_name import open_task

pytestmark = FASTEST

DRAWINGS = sorted(
    (pathlib.Path(__file__).parents[3] / "examples/drawings").glob("*.png")
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


def _emoji_questions(scenes):
    said = [*questions.ASK_COLOR, "is it mostly gray?", "is this gray?"]
    return _each_with_each(said, DRAWINGS[::4])


def _emoji_captions(scenes, thing="elephant"):
    ways = (*texts.WAYS, *texts.NEW_WAYS)
    said = [texts.phrase(way, f"gray {thing}") for way in ways]
    capital = [text.capitalize() for text in said if "<" not in text]
    return _each_with_each([*said, *capital], DRAWINGS[::16])


def _shape_questions(scenes):
    said = sorted(set(pictures.load("test").questions))
    return _each_with_each(said, list(scenes.data.images[:16]))


def _shape_captions(scenes, thing="circle"):
    words = {"size": "small", "colour": "gray", "position": "center"}
    said = [
        template.format(shape=thing, **words) for template in captions.TEMPLATES
    ]
    return _each_with_each(said, list(scenes.data.images[:32]))


def _hypotheses(scenes):
    made = entailment.varied_entailment(scenes, sentences=SENTENCES)
    return made.hypotheses, list(made.images(scenes))


def _statements(scenes):
    made = pairs.pairs(scenes)
    return made.sentences, list(scenes.data.images[made.image_index])


# (preset, task): the texts of all templates with pictures.
CASES = {
    ("emoji_vqa", "vqa"): _emoji_questions,
    ("emoji_contrastive", "contrastive"): _emoji_captions,
    ("emoji_retrieval", "retrieval"): _emoji_captions,
    ("emoji_mlm", "masked_lm"): _emoji_captions,
    ("easy_vqa", "vqa"): _shape_questions,
    ("easy_contrastive", "contrastive"): _shape_captions,
    ("easy_retrieval", "retrieval"): _shape_captions,
    ("easy_pretrain", "contrastive"): _shape_captions,
    ("easy_pretrain", "retrieval"): _shape_captions,
    ("easy_pretrain", "masked_lm"): _shape_captions,
    ("easy_mlm", "masked_lm"): _shape_captions,
    ("easy_entailment", "entailment"): _hypotheses,
    ("easy_nlvr2", "nlvr2"): _statements,
}
# What a row of results says first, by task.
FIRST = {
    "vqa": lambda row: row["answers"][0][0],
    "retrieval": lambda row: row["score"] > 0,
    "masked_lm": lambda row: [tokens[0][0] for tokens in row["masks"]],
    "entailment": lambda row: row["label"],
    "nlvr2": lambda row: row["true"],
}


def first(task, name, said, images):
    if name == "contrastive":
        shown = list({id(image): image for image in images}.values())
        vectors = task.embed(images=shown, batch_size=BATCH)
        return (task.embed(texts=said, batch_size=BATCH) @ vectors.T).argmax(1)
    columns = {"image": images, "text": said}
    if name == "nlvr2":
        columns["image"], columns["second_image"] = zip(*images, strict=True)
    rows = BUILT_IN[name].run(task, columns, batch_size=BATCH)
    return [FIRST[name](row) for row in rows]


@pytest.mark.parametrize("preset, name", CASES)
def test_both_spellings_get_the_same_answers(preset, name, scenes):
    given = {"thing": "<mask>"} if name == "masked_lm" else {}
    cases = CASES[preset, name](scenes, **given)
    task = open_task(f"bridgetower_tiny_{preset}", name)
    rows = [
        (spelling.american(text), spelling.british(text), image)
        for text, image in zip(*cases, strict=True)
    ]
    rows = [row for row in rows if row[0] != row[1]][::10]
    american, british, images = map(list, zip(*rows, strict=True))
    found = [first(task, name, x, images) for x in (american, british)]
    other = {a for a, x, y in zip(american, *found, strict=True) if x != y}
    assert not other
