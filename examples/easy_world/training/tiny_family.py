"""The stages of `train_tiny_family.py`: the model, data and score of each."""

import dataclasses
from collections.abc import Callable
from itertools import islice

import numpy as np

import keras_bridgetower as kbt
from easy_world import captions
from easy_world import entailment
from easy_world import pairs
from easy_world import pictures
from easy_world.scenes import load_scenes
from easy_world.training.tiny_training import SIDE
from easy_world.training.tiny_training import build_backbone
from easy_world.training.tiny_training import learn_vocabulary
from easy_world.training.vocabulary import with_more_words
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall

PROJECTION_DIM = 64
# The longest text has 15 tokens.
SEQUENCE_LENGTH = 16
# Where texts are varied, and users write their own.
VARIED_LENGTH, VARIED_VOCABULARY = 24, 704


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
        learning_rate: float, over that of the command line.
    """

    build: Callable
    rows: Callable
    score: Callable
    blind: dict
    measure: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.5


def _pretraining(folder):
    scenes = load_scenes("train")
    texts = [
        *pictures.load("train").questions,
        *captions.captions(scenes).texts,
        *entailment.entailment(scenes).hypotheses,
        *pairs.pairs(scenes).sentences,
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
    made = captions.captions(scenes)
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


def _caption_inputs(scenes, seed):
    x = {
        "images": scenes.data.images,
        "text": captions.varied_captions(scenes, seed),
    }
    return x


def _score_blanks(task, scenes):
    made = captions.blanks(scenes)
    filled = task.fill_mask(
        list(scenes.data.images[made.image_index]), made.texts, batch_size=256
    )
    right = np.array(
        [
            masks[0][0][0].strip() == answer
            for (masks, _), answer in zip(filled, made.answers, strict=True)
        ]
    )
    kinds = np.array(made.kinds)
    scores = {
        kind: round(100 * float(right[kinds == kind].mean()), 2)
        for kind in captions.BLIND_BLANKS
    }
    return scores | {"mean": round(float(np.mean([*scores.values()])), 2)}


def _recalls(scores, pool, scenes):
    report = retrieval_recall(scores, pool.owner, split=scenes.split)
    found = report.recalls | {"RSUM": report.rsum}
    return {name: round(float(value), 2) for name, value in found.items()}


def _score_ranking(task, scenes):
    pool = captions.gallery(scenes)
    images = list(scenes.data.images[pool.pictures])
    scores = task.rank(
        images, pool.texts, shortlist=32, batch_size=256, verbose=0
    )
    made = captions.matches(scenes)
    x = {"images": scenes.data.images[made.image_index], "text": made.texts}
    logits = task.predict(x, batch_size=256, verbose=0)
    right = (logits.argmax(-1) == made.labels).mean()
    return _recalls(scores, pool, scenes) | {
        "true or false caption": round(100 * float(right), 2)
    }


def _score_embeddings(task, scenes):
    pool = captions.gallery(scenes)
    images = task.embed(
        images=list(scenes.data.images[pool.pictures]), batch_size=256
    )
    texts = task.embed(texts=pool.texts, batch_size=256)
    return _recalls(images @ texts.T, pool, scenes)


def _hypotheses(scenes, seed):
    made = entailment.entailment(scenes, seed)
    x = {"images": made.images(scenes), "text": made.hypotheses}
    return x, made.labels.astype("int32")


def _varied_hypotheses(scenes, seed):
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


def _score_hypotheses(task, scenes):
    x, labels = _hypotheses(scenes, 0)
    logits = task.predict(x, batch_size=256, verbose=0)
    right = (logits.argmax(-1) == labels).mean()
    return {"accuracy": round(100 * float(right), 2)}


def _statements(scenes, seed):
    made = pairs.pairs(scenes, seed)
    x = {
        "images": scenes.data.images[made.image_index],
        "text": made.sentences,
    }
    return x, made.labels.astype("int32")


def _score_statements(task, scenes):
    x, labels = _statements(scenes, 0)
    logits = task.predict(x, batch_size=256, verbose=0)
    report = evaluate_nlvr2(
        pairs.pairs(scenes).identifiers, labels, logits.argmax(-1)
    )
    return {
        "accuracy": round(report.accuracy, 2),
        "consistency": round(report.consistency, 2),
    }


def _start(cls, **values):
    """The task of a class, from the pre-trained preset."""
    return lambda folder: cls.from_preset(folder, **values)


def _start_with_more_words(cls, **values):
    """Likewise, with the words of varied texts in its vocabulary."""

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
    """For pictures seen in full, the image tower knows enough: it rests."""
    build = _start_with_more_words(kbt.BridgeTowerMaskedLM, rate=0.3)
    task = build(folder)
    task.backbone.image_tower.trainable = False
    return task


# What a predictor gets that guesses on the test gallery.
CHANCE = {"IR@1": 0.22, "IR@5": 1.09, "IR@10": 2.18} | {
    "TR@1": 0.22,
    "TR@5": 1.09,
    "TR@10": 2.16,
    "RSUM": captions.RETRIEVAL_LADDER[()],
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
        learning_rate=1.0,
    ),
    "mlm": Stage(
        _fill_start,
        _caption_inputs,
        _score_blanks,
        captions.BLIND_BLANKS | {"mean": 27.68},
        "Share of captions whose one masked word is found, for each attribute. "
        "Blind: the attribute's most frequent word.",
        epochs=24,
        batch_size=64,
        learning_rate=1.0,
    ),
    "retrieval": Stage(
        _start(kbt.BridgeTowerRetrieval, objective="hard_negatives"),
        caption_rows,
        _score_ranking,
        CHANCE | {"true or false caption": 50.0},
        "Recall on the gallery of distinct pictures, by the two-stage protocol "
        "with a shortlist of 32; and captions that are true or wrong in one "
        "attribute. Blind: guessing.",
        epochs=15,
    ),
    "contrastive": Stage(
        _start(
            kbt.BridgeTowerContrastive,
            projection_dim=PROJECTION_DIM,
            ways="three_way",
        ),
        caption_rows,
        _score_embeddings,
        CHANCE,
        "Recall on the gallery of distinct pictures, by the cosine of text and "
        "image embeddings alone. Blind: guessing.",
        epochs=15,
    ),
    "entailment": Stage(
        _start_with_more_words(kbt.BridgeTowerEntailment),
        _varied_hypotheses,
        _score_hypotheses,
        {"accuracy": entailment.BLIND_ENTAILMENT["text and view"]},
        "Accuracy. Blind: the majority label of text and kind of view.",
        epochs=7,
        batch_size=64,
        learning_rate=1.0,
    ),
    "nlvr2": Stage(
        _start(kbt.BridgeTowerNLVR2),
        _statements,
        _score_statements,
        {"accuracy": pairs.BLIND_PAIRS["text and right"]},
        "Accuracy, and share of sentences that are right for all four pairs. "
        "Blind: the better of text with one of the two pictures.",
        epochs=12,
    ),
}
