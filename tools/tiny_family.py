"""The stages of `train_tiny_family.py`: model, rows and score of each."""

import dataclasses
from collections.abc import Callable

import numpy as np
from tiny_training import SIDE
from tiny_training import build_backbone
from tiny_training import learn_vocabulary

import keras_bridgetower as kbt
from keras_bridgetower.data import easy_vqa
from keras_bridgetower.data import easy_vqa_captions
from keras_bridgetower.data import easy_vqa_entailment
from keras_bridgetower.data import easy_vqa_pairs
from keras_bridgetower.data.easy_vqa_scenes import load_scenes

PROJECTION_DIM = 64
# The longest text has 15 tokens.
SEQUENCE_LENGTH = 16


@dataclasses.dataclass(frozen=True)
class Stage:
    """One preset of the family.

    Args:
        build: callable from the pre-trained preset's folder to the task.
        rows: callable from scenes and seed to raw `(x, y)` of one epoch.
        score: callable from task and scenes to a dict of percentages.
        blind: dict, scores on test without a look at the pictures.
        measure: str, what the scores are.
        epochs: int.
        batch_size: int.
    """

    build: Callable
    rows: Callable
    score: Callable
    blind: dict
    measure: str
    epochs: int
    batch_size: int


def _pretraining(folder):
    scenes = load_scenes("train")
    texts = [
        *easy_vqa.load("train").questions,
        *easy_vqa_captions.captions(scenes).texts,
        *easy_vqa_entailment.entailment(scenes).hypotheses,
        *easy_vqa_pairs.pairs(scenes).sentences,
    ]
    vocabulary, merges = learn_vocabulary(texts)
    preprocessor = kbt.BridgeTowerPretrainingPreprocessor(
        kbt.BridgeTowerTokenizer(vocabulary, merges, SEQUENCE_LENGTH),
        kbt.BridgeTowerImageConverter(SIDE),
        rate=0.3,
    )
    return kbt.BridgeTowerPretraining(
        build_backbone(
            len(vocabulary), image_layers=4, text_layers=2, layers=2
        ),
        preprocessor,
        projection_dim=PROJECTION_DIM,
    )


def caption_rows(scenes, seed):
    """Each picture with one of its captions; the ids are what it shows."""
    made = easy_vqa_captions.captions(scenes)
    templates = len(made.texts) // len(made.pictures)
    chosen = scenes.generator(seed).integers(templates, size=len(made.pictures))
    texts = np.array(made.texts).reshape(-1, templates)
    x = {
        "images": scenes.data.images,
        "text": texts[np.arange(len(texts)), chosen],
    }
    return x, made.groups.astype("int32")


def _score_pretraining(task, scenes):
    x, ids = caption_rows(scenes, 0)
    found = task.evaluate(x, ids, batch_size=100, verbose=0, return_dict=True)
    return {
        name: round(100 * float(value), 2)
        for name, value in found.items()
        if name.endswith("accuracy")
    }


STAGES = {
    "pretrain": Stage(
        _pretraining,
        caption_rows,
        _score_pretraining,
        {"itm_accuracy": 50.0, "itc_accuracy": 1.0},
        "Accuracies of masked tokens (30 % of all), of matching (half the "
        "texts with another picture) and of the nearest picture among 100.",
        epochs=40,
        batch_size=128,
    ),
}
