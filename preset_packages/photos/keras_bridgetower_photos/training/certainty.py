"""Calibrate answers, and tell known pictures from unknown ones."""

import numpy as np
from keras_bridgetower_drawings.training.emoji.calibrate import divide

from keras_bridgetower import metrics
from keras_bridgetower_photos.training import unknown


def scores(scored, asked, logits):
    """Score calibration, and the separation of known and unknown pictures.

    `asked` and `logits` are what `scored.answered` returned.
    """
    best = shares(logits).max(1)
    right = scored.are_right(asked, logits)
    error = metrics.expected_calibration_error(best, right)
    kinds, others = of_unknown(scored, asked)
    known = -metrics.energy(logits)
    taught = np.isin(kinds, unknown.TAUGHT)
    areas = {
        "all": area(known, others),
        "kinds that training showed": area(known, others[taught]),
        "other kinds": area(known, others[~taught]),
    }
    areas |= {
        kind: area(known, others[kinds == kind])
        for kind in sorted(set(kinds.tolist()))
    }
    return {
        "calibration error": round(error, 3),
        "wrong above 0.9": f"{(best[~right] > 0.9).sum()} of {(~right).sum()}",
        "AUROC of known against unknown": areas,
        "pictures": len(kinds),
    }


def of_unknown(scored, asked):
    """Return kind and negative energy of each picture of `unknown`.

    Each is asked a question about some scene of the world.
    """
    shown = unknown.unknown(scored.folders)
    states = scored.see([np.array(picture) for *_, picture in shown])
    rng = np.random.default_rng(unknown.SEED)
    chosen = rng.permutation(len(asked))[: len(shown)]
    texts = [asked[i].text for i in chosen]
    found = scored.judge.judge(texts, states, np.arange(len(shown)))
    kinds = np.array([kind for _, kind, _ in shown])
    return kinds, -metrics.energy(found["answers"])


def area(known, others):
    """Return the area under the receiver operating characteristic."""
    above = known[:, None] > others
    same = known[:, None] == others
    return round(float(np.mean(above + same / 2)), 3)


def shares(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, "float64")))


def calibrate(vqa, scored, split="validation"):
    """Calibrate `vqa`, whose answers `scored` judges, and set its rejection.

    Returns the temperature and the threshold.
    """
    asked, logits = scored.answered(split)
    right = scored.are_right(asked, logits)
    temperature = divide(vqa, logits.max(1), right)
    threshold = metrics.threshold_for(-metrics.energy(logits / temperature))
    vqa.rejection = {"kind": "energy", "threshold": threshold}
    return {"temperature": temperature, "threshold": threshold}
