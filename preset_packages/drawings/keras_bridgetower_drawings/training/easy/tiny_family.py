"""The stages of `train_tiny_family.py`: the model, data and score of each."""

import functools
import json
import pathlib
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.metrics.classification import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import pictures
from keras_bridgetower_drawings.training.easy import tiny_training
from keras_bridgetower_drawings.training.easy.scenes import ATTRIBUTES
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from keras_bridgetower_drawings.training.easy.vocabulary import with_more_words

PROJECTION_DIM = 64
# The longest text has 15 tokens.
SEQUENCE_LENGTH = 16
# For varied texts, and those of users.
VARIED_LENGTH, VARIED_VOCABULARY = 24, 704


# Rows: raw `(x, y)` of one epoch, or `x`, from scenes and a seed.


def caption_rows(scenes, seed):
    """Return each picture with one of its captions, and its group as id."""
    made = captions.captions(scenes)
    templates = len(made.texts) // len(made.pictures)
    chosen = scenes.generator(seed).integers(templates, size=len(made.pictures))
    texts = np.array(made.texts).reshape(-1, templates)
    texts = texts[np.arange(len(texts)), chosen]
    x = {"images": scenes.data.images, "text": texts}
    return x, made.groups.astype("int32")


def questions(scenes, seed):
    data, texts = scenes.data, np.array(scenes.data.questions)
    x = {"images": data.images[data.image_index], "text": texts}
    return x, np.array(data.answers)


def varied_captions(scenes, seed):
    texts = np.array(captions.varied_captions(scenes, seed))
    return {"images": scenes.data.images, "text": texts}


def matches(scenes, seed):
    made = captions.matches(scenes, seed)
    images = scenes.data.images[made.image_index]
    return {"images": images, "text": np.array(made.texts)}, made.labels


def hypotheses(scenes, seed):
    made = entailment.entailment(scenes, seed)
    x = {"images": made.images(scenes), "text": np.array(made.hypotheses)}
    return x, made.labels.astype("int32")


def varied_hypotheses(scenes, seed):
    """Return rows of which a third are the benchmark's, the others varied."""
    plain = entailment.entailment(scenes, seed)
    count = len(plain.labels) // 3
    varied = entailment.varied_entailment(scenes, seed, 2 * count // 3)
    images = [*islice(plain.each_image(scenes), count)]
    x = {
        "images": np.stack(images + [*varied.each_image(scenes)]),
        "text": np.array(plain.hypotheses[:count] + varied.hypotheses),
    }
    labels = np.concatenate([plain.labels[:count], varied.labels])
    return x, labels.astype("int32")


def statements(scenes, seed):
    made = pairs.pairs(scenes, seed)
    images = scenes.data.images[made.image_index]
    x = {"images": images, "text": np.array(made.sentences)}
    return x, made.labels.astype("int32")


# Scores: dicts of percentages, from a task and scenes.


_percent = functools.partial(reports.percent, digits=2)


def score_questions(task, scenes):
    """Return the share of right answers, also by kind of question."""
    x, answers = questions(scenes, 0)
    logits = task.predict(x, batch_size=256, verbose=0)
    right = np.array(task.answers)[logits.argmax(-1)] == answers
    kinds = np.array([pictures.question_kind(a) for a in answers])
    found = {k: _percent(right[kinds == k]) for k in np.unique(kinds)}
    return {"overall": _percent(right)} | found


def score_pretraining(task, scenes):
    x, ids = caption_rows(scenes, 0)
    found = task.evaluate(x, ids, batch_size=100, verbose=0, return_dict=True)
    return {k: _percent(v) for k, v in found.items() if k.endswith("accuracy")}


def score_blanks(task, scenes):
    """Return the share of blanks that are filled correctly, by attribute."""
    made = captions.blanks(scenes)
    filled = task.fill_mask(
        list(scenes.data.images[made.image_index]), made.texts, batch_size=256
    )
    words = [masks[0][0][0].strip() for masks, _ in filled]
    right = np.array(words) == made.answers
    kinds = np.array(made.kinds)
    scores = {k: _percent(right[kinds == k]) for k in ATTRIBUTES}
    return scores | {"mean": round(float(np.mean([*scores.values()])), 2)}


def _recalls(scores, pool, scenes):
    report = retrieval_recall(scores, pool.owner, split=scenes.split)
    found = report.recalls | {"RSUM": report.rsum}
    return {name: round(float(value), 2) for name, value in found.items()}


def score_ranking(task, scenes):
    pool = captions.gallery(scenes)
    images = list(scenes.data.images[pool.pictures])
    scores = task.rank(
        images, pool.texts, shortlist=32, batch_size=256, verbose=0
    )
    share = _accuracy(task, *matches(scenes, 0))
    return _recalls(scores, pool, scenes) | {"true or false caption": share}


def score_embeddings(task, scenes):
    pool = captions.gallery(scenes)
    images = task.embed(
        images=list(scenes.data.images[pool.pictures]), batch_size=256
    )
    texts = task.embed(texts=pool.texts, batch_size=256)
    return _recalls(images @ texts.T, pool, scenes)


def score_hypotheses(task, scenes):
    return {"accuracy": _accuracy(task, *hypotheses(scenes, 0))}


def _accuracy(task, x, labels):
    logits = task.predict(x, batch_size=256, verbose=0)
    return _percent(logits.argmax(-1) == labels)


def score_statements(task, scenes):
    x, labels = statements(scenes, 0)
    chosen = task.predict(x, batch_size=256, verbose=0).argmax(-1)
    report = evaluate_nlvr2(pairs.pairs(scenes).identifiers, labels, chosen)
    names = "accuracy", "consistency"
    return {name: round(getattr(report, name), 2) for name in names}


class Stage(NamedTuple):
    """One preset of the family; `tiny_family.json` has the later values."""

    build: Callable  # From the folder of the preset to start from to the task.
    rows: Callable  # From scenes and seed to raw `(x, y)` of one epoch.
    score: Callable  # From task and scenes to a dict of percentages.
    blind: dict  # Scores on test of a predictor that sees no picture.
    measure: str  # A description of the scores.
    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.5  # A factor of the command line's.
    texts: str = ""  # A description of special training texts.
    # The stage whose preset it starts from; without one an image tower is
    # trained first.
    start: str | None = "pretrain"


def _vqa(folder):
    texts = pictures.load("train").questions
    return kbt.BridgeTowerVQA(
        *_parts(
            kbt.BridgeTowerVQAPreprocessor,
            *(texts, 3, 3),
            answers=pictures.answer_list(),
        )
    )


def _pretraining(folder):
    scenes = load_scenes("train")
    texts = [
        *pictures.load("train").questions,
        *captions.captions(scenes).texts,
        *entailment.entailment(scenes).hypotheses,
        *pairs.pairs(scenes).sentences,
    ]
    preprocessor = kbt.BridgeTowerPretrainingPreprocessor
    return kbt.BridgeTowerPretraining(
        *_parts(preprocessor, texts, 2, 2, rate=0.3),
        projection_dim=PROJECTION_DIM,
    )


def _parts(preprocessor, texts, text_layers, layers, **values):
    """Return an untrained backbone and a preprocessor with the texts' words."""
    vocabulary, merges = tiny_training.learn_vocabulary(texts)
    backbone = tiny_training.build_backbone(
        len(vocabulary), image_layers=4, text_layers=text_layers, layers=layers
    )
    return backbone, preprocessor(
        kbt.BridgeTowerTokenizer(vocabulary, merges, SEQUENCE_LENGTH),
        kbt.BridgeTowerImageConverter(tiny_training.SIDE),
        **values,
    )


def _start(cls, **values):
    return lambda folder: cls.from_preset(folder, **values)


def _start_with_more_words(cls, **values):
    def build(folder):
        scenes = load_scenes("train")
        texts = [
            *sorted(set(entailment.varied_entailment(scenes).hypotheses)),
            *captions.varied_captions(scenes),
        ]
        return with_more_words(
            cls, folder, texts, VARIED_VOCABULARY, VARIED_LENGTH, **values
        )

    return build


def _fill_start(folder):
    """Freeze the image tower: it knows enough of pictures seen in full."""
    build = _start_with_more_words(kbt.BridgeTowerMaskedLM, rate=0.3)
    task = build(folder)
    task.backbone.image_tower.trainable = False
    return task


# Expected scores of guesses on the test gallery.
CHANCE = {"IR@1": 0.22, "IR@5": 1.09, "IR@10": 2.18} | {
    "TR@1": 0.22,
    "TR@5": 1.09,
    "TR@10": 2.16,
    "RSUM": captions.BLIND_RSUM,
}
_ENTAILMENT_BLIND = {"accuracy": entailment.BLIND_ENTAILMENT["text and view"]}
_STAGES = {
    "pretrain": (
        *(_pretraining, caption_rows, score_pretraining),
        {"itm_accuracy": 50.0, "itc_accuracy": 1.0},
    ),
    "vqa": (_vqa, questions, score_questions, pictures.BLIND_TEST_SCORES),
    "mlm": (
        *(_fill_start, varied_captions, score_blanks),
        captions.BLIND_BLANKS | {"mean": 27.68},
    ),
    "retrieval": (
        _start(kbt.BridgeTowerRetrieval, objective="hard_negatives"),
        *(caption_rows, score_ranking),
        CHANCE | {"true or false caption": 50.0},
    ),
    "contrastive": (
        _start(
            kbt.BridgeTowerContrastive,
            projection_dim=PROJECTION_DIM,
            ways="three_way",
        ),
        *(caption_rows, score_embeddings, CHANCE),
    ),
    # The statements of the score alone: from varied ones at the start a model
    # learns the words, and not to look.
    "statements": (
        _start(kbt.BridgeTowerEntailment),
        *(hypotheses, score_hypotheses, _ENTAILMENT_BLIND),
    ),
    "entailment": (
        _start_with_more_words(kbt.BridgeTowerEntailment),
        *(varied_hypotheses, score_hypotheses, _ENTAILMENT_BLIND),
    ),
    "nlvr2": (
        _start(kbt.BridgeTowerNLVR2),
        *(statements, score_statements),
        {"accuracy": pairs.BLIND_PAIRS["text and right"]},
    ),
}
_VALUES = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
STAGES = {n: Stage(*parts, **_VALUES[n]) for n, parts in _STAGES.items()}
