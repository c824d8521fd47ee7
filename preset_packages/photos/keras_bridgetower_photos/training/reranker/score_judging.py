"""Score a preset's judgments of pictures that training never saw.

    python -m keras_bridgetower_photos.training.reranker.score_judging \
        runs/reranker PRESET --part validation

It prints how many captions it says rightly to be entailed, neutral, or
contradictions, by sort and by label, and with `--statements` how many
statements about two pictures it judges rightly, by kind.
"""

import json

import keras
import numpy as np
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import score
from keras_bridgetower_drawings.training.scenes.scenes import SORTS

import keras_bridgetower as kbt
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker import cards
from keras_bridgetower_photos.training.reranker import judging
from keras_bridgetower_photos.training.reranker.world import World
from keras_bridgetower_photos.training.reranker.world import scene_of

SEED, GROUPS = 2030, 8  # Groups whose pictures statements compare.


def tables(entailment, nlvr2, world, rows, seed=SEED):
    """Return the tables of captions and of statements.

    Args:
        entailment: a `BridgeTowerEntailment`.
        nlvr2: a `BridgeTowerNLVR2`, or None for captions alone.
        world: `World` of the rows.
        rows: of a pool that `cards.write` wrote.
    """
    side, rng = entailment.backbone.image_size, np.random.default_rng(seed)
    scenes = [scene_of(row["scene"]) for row in rows]
    pictures = [
        cards.shown(world, scene, row["card"], side)
        for scene, row in zip(scenes, rows, strict=True)
    ]
    judged, compared, plain, told = [], [], [], []
    for first in range(0, len(rows), cards.PICTURES):
        sort = rows[first]["sort"]
        both = first + np.array(cards.PLAIN)
        told += captions.captions(
            scenes[both[0]], sort, world.part, rng, scenes[both[1]]
        )
        plain += both.tolist()
        for text, picture, label in judging.hypotheses(sort, rng):
            text = told[len(told) - 2 + text].text
            judged.append((sort, picture, text, first + picture, label))
        if len(plain) == 2 * GROUPS:
            found = judging.statements(
                [scenes[i] for i in plain], told, world.part, rng
            )
            for text, pair, _, kind, true in zip(*found, strict=True):
                pair = [plain[i] for i in pair]
                compared.append((list(judging.KINDS)[kind], text, pair, true))
            plain, told = [], []
    found = {"captions": _of_captions(entailment, pictures, judged)}
    if nlvr2 is not None:
        found["statements"] = _of_statements(nlvr2, pictures, compared)
    return found


def _of_captions(task, pictures, judged):
    sorts, shown, texts, rows, labels = map(np.array, zip(*judged, strict=True))
    names = np.array(judging.LABELS)[labels]
    answers = task.entail([pictures[i] for i in rows], texts.tolist())
    hits = np.array([label for label, _ in answers]) == names
    # The best label by whether there is a card, without the caption.
    there, likely = shown > max(cards.PLAIN), np.zeros(len(judged), bool)
    for one in (False, True):
        counted = np.bincount(labels[there == one])
        likely |= (there == one) & (labels == counted.argmax())
    table = {}
    for name, found in (("fusion", hits), ("card alone", likely)):
        table[name] = {"all": reports.percent(found)}
        table[name] |= {s: reports.percent(found[sorts == s]) for s in SORTS}
        table[name] |= {
            n: reports.percent(found[names == n]) for n in judging.LABELS
        }
    return table


def _of_statements(task, pictures, compared):
    kinds, texts, pairs, true = zip(*compared, strict=True)
    sides = [[pictures[i] for i in side] for side in zip(*pairs, strict=True)]
    answers = task.compare(*sides, list(texts))
    hits = np.array([said for said, _ in answers]) == np.array(true)
    kinds = np.array(kinds)
    row = {"all": reports.percent(hits)}
    row |= {k: reports.percent(hits[kinds == k]) for k in judging.KINDS}
    return {"fusion": row, "blind": dict.fromkeys(row, 50)}


def main():
    parser = score.parser(__doc__)
    parser.add_argument("--statements", action="store_true")
    settings = parser.parse_args()
    run, part = settings.folder, settings.part
    world = World(things.load(packages.fetch(run / "packages")), part)
    rows = run / "judged" / part / "pool_0" / "rows.json"
    nlvr2 = None
    if settings.statements:
        nlvr2 = kbt.BridgeTowerNLVR2.from_preset(settings.preset)
    entailment = kbt.BridgeTowerEntailment.from_preset(settings.preset)
    found = tables(entailment, nlvr2, world, json.loads(rows.read_text()))
    name = f"judged_{part}_{keras.backend.backend()}.json"
    reports.write_scores(run / name, found)


if __name__ == "__main__":
    main()
