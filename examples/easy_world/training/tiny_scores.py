"""The scores of the presets that `train_tiny_family.py` trains, in percent."""

import numpy as np

from easy_world import captions
from easy_world import pairs
from easy_world.training import tiny_rows
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2
from keras_bridgetower.metrics.retrieval import retrieval_recall


def score_pretraining(task, scenes):
    """Accuracies of the three objectives."""
    x, ids = tiny_rows.caption_rows(scenes, 0)
    found = task.evaluate(x, ids, batch_size=100, verbose=0, return_dict=True)
    return {
        name: round(100 * float(value), 2)
        for name, value in found.items()
        if name.endswith("accuracy")
    }


def score_blanks(task, scenes):
    """Share of blanks that are filled right, for each attribute."""
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


def score_ranking(task, scenes):
    """Recalls of two-stage ranking, and matching of captions."""
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


def score_embeddings(task, scenes):
    """Recalls by embeddings alone."""
    pool = captions.gallery(scenes)
    images = task.embed(
        images=list(scenes.data.images[pool.pictures]), batch_size=256
    )
    texts = task.embed(texts=pool.texts, batch_size=256)
    return _recalls(images @ texts.T, pool, scenes)


def score_hypotheses(task, scenes):
    """Accuracy on the entailment benchmark."""
    x, labels = tiny_rows.hypotheses(scenes, 0)
    logits = task.predict(x, batch_size=256, verbose=0)
    right = (logits.argmax(-1) == labels).mean()
    return {"accuracy": round(100 * float(right), 2)}


def score_statements(task, scenes):
    """Accuracy and consistency on pairs of pictures."""
    x, labels = tiny_rows.statements(scenes, 0)
    logits = task.predict(x, batch_size=256, verbose=0)
    report = evaluate_nlvr2(
        pairs.pairs(scenes).identifiers, labels, logits.argmax(-1)
    )
    return {
        "accuracy": round(report.accuracy, 2),
        "consistency": round(report.consistency, 2),
    }
