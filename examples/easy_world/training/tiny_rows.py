"""The rows on which `train_tiny_family.py` trains, as raw `(x, y)` or `x`."""

from itertools import islice

import numpy as np

from easy_world import captions
from easy_world import entailment
from easy_world import pairs


def caption_rows(scenes, seed):
    """Each picture with one of its captions; the ids are what it shows."""
    made = captions.captions(scenes)
    templates = len(made.texts) // len(made.pictures)
    chosen = scenes.generator(seed).integers(templates, size=len(made.pictures))
    texts = np.array(made.texts).reshape(-1, templates)
    x = {
        "images": scenes.data.images,
        "text": texts[np.arange(len(texts)), chosen],
    }
    return x, made.groups.astype("int32")


def varied_captions(scenes, seed):
    """Each picture with one true sentence."""
    x = {
        "images": scenes.data.images,
        "text": captions.varied_captions(scenes, seed),
    }
    return x


def hypotheses(scenes, seed):
    """The rows of the entailment benchmark."""
    made = entailment.entailment(scenes, seed)
    x = {"images": made.images(scenes), "text": made.hypotheses}
    return x, made.labels.astype("int32")


def varied_hypotheses(scenes, seed):
    """A third of the rows are those of the benchmark, two are varied."""
    plain = entailment.entailment(scenes, seed)
    count = len(plain.labels) // 3
    varied = entailment.varied_entailment(scenes, seed, 2 * count // 3)
    images = [*islice(plain.each_image(scenes), count)]
    x = {
        "images": np.stack(images + [*varied.each_image(scenes)]),
        "text": plain.hypotheses[:count] + varied.hypotheses,
    }
    labels = np.concatenate([plain.labels[:count], varied.labels])
    return x, labels.astype("int32")


def statements(scenes, seed):
    """The rows of the benchmark of two pictures."""
    made = pairs.pairs(scenes, seed)
    x = {
        "images": scenes.data.images[made.image_index],
        "text": made.sentences,
    }
    return x, made.labels.astype("int32")
