"""Write easy-VQA as small data sets of records, to try recipes on."""

import contextlib
import io
import itertools

from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import pictures
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from PIL import Image

from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.records.write import write_shards

SPLITS = ("train", "validation", "test")
SOURCE = "easy-vqa"
LABELS = ["contradiction", "neutral", "entailment"]


def build(task, folder, limit=None):
    """Write all splits of a task's data, where they are not there yet."""
    labels, records = RECORDS[task]
    for split in SPLITS:
        # A part of a data set is not read: `write_shards` writes the rest.
        with contextlib.suppress(ValueError):
            open_records(folder, split)
            continue
        write_shards(
            folder,
            split,
            itertools.islice(records(load_scenes(split)), limit),
            task=task,
            labels=labels(),
            definition=f"easy-VQA, {split} pictures; texts made by templates.",
        )


def _captions(scenes):
    made = captions.captions(scenes)
    texts = {}
    for text, owner in zip(made.texts, made.owner, strict=True):
        texts.setdefault(int(owner), []).append(text)
    # Pictures of one group fit each other's captions: they share a record.
    for row, picture in enumerate(made.pictures):
        samples = [
            Sample(f"{picture}-{i}", t) for i, t in enumerate(texts[row])
        ]
        yield _record(scenes, picture, samples)


def _questions(scenes):
    data, ids = scenes.data, pictures.answer_list()
    samples = {}
    rows = zip(data.image_index, data.questions, data.answers, strict=True)
    for number, (picture, question, answer) in enumerate(rows):
        sample = Sample(f"{number}", question, (ids.index(answer),), (1.0,))
        samples.setdefault(int(picture), []).append(sample)
    for picture, of_picture in samples.items():
        yield _record(scenes, picture, of_picture)


def _hypotheses(scenes):
    made = entailment.entailment(scenes)
    images = made.each_image(scenes)
    rows = zip(images, made.hypotheses, made.labels, strict=True)
    for i, (image, text, y) in enumerate(rows):
        sample = Sample(f"{i}", text, (int(y),))
        yield Record(f"{i}", (_png(image),), (sample,), SOURCE)


def _statements(scenes):
    made = pairs.pairs(scenes)
    rows = zip(
        *(made.identifiers, made.image_index, made.sentences, made.labels),
        strict=True,
    )
    for name, pair, text, y in rows:
        images = tuple(_png(scenes.data.images[i]) for i in pair)
        yield Record(name, images, (Sample(name, text, (int(y),)),), SOURCE)


def _record(scenes, picture, samples):
    image = _png(scenes.data.images[picture])
    return Record(f"{picture}", (image,), tuple(samples), SOURCE)


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


RECORDS = {
    "captions": (list, _captions),
    "vqa": (pictures.answer_list, _questions),
    "entailment": (lambda: LABELS, _hypotheses),
    "nlvr2": (lambda: ["False", "True"], _statements),
}
