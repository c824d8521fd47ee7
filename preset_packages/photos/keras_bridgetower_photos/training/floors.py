r"""Set from which score on an answer is known, for each sort of question.

    python -m keras_bridgetower_photos.training.floors runs/photos PRESET

writes the table of questions into the rejection rule of a preset. `sorts.json`
lists the sorts by their phrases, `^` for the start, and the groups of answers
that they may have. Floors and words are chosen on validation alone.
"""

import json
import pathlib
import re

import numpy as np
from keras_bridgetower_drawings.training import reports

from keras_bridgetower.files import read_json
from keras_bridgetower.models.exporting import runtime
from keras_bridgetower.presets import manifest
from keras_bridgetower_photos.training import classes
from keras_bridgetower_photos.training import score
from keras_bridgetower_photos.training import things

# This share of the known answers of a sort must be right, of at least so many.
SHARE, LEAST = 0.8, 20
_PLACES = ("building", "monument", "landscape")
_TABLE = json.loads(pathlib.Path(__file__).with_name("sorts.json").read_text())


def floor_for(scores, right, share=SHARE, least=LEAST):
    """Return the lowest score such that a share of answers from it is right.

    Returns 1, which no score reaches, if fewer than `least` answers are.
    """
    order = np.argsort(-scores, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(shares[least - 1 :] >= share)
    return (
        float(scores[order[least - 1 + reached[-1]]]) if len(reached) else 1.0
    )


def places(world, known):
    """Return the places among the answers of a world and of ImageNet."""
    shown = {one.noun for one in world.shown if one.kind in _PLACES}
    named = {
        name
        for one in known
        if one.kind in _PLACES
        for name in (one.names[0], *one.daily)
    }
    return {"place", *_PLACES, *things.PLACES, *shown, *named}


def words_of(texts):
    """Return the words of texts, as a rule reads them, in one string."""
    words = {w for text in texts for w in re.findall(r"[^\W_]+", text.lower())}
    return " ".join(sorted(words))


def table(answers, where, words):
    """Return the table of questions, whose floors reject nothing yet.

    Args:
        answers: list of str, the answers of a preset.
        where: set of str, what `places` returned.
        words: str, the words of training with spaces between.
    """
    groups = _TABLE["groups"] | {"places": [a for a in answers if a in where]}
    phrases = _TABLE["phrases"]
    return {
        "words": words,
        "share": 0.0,
        "skip": _TABLE["skip"],
        "sorts": [
            {
                "name": sort["name"],
                "has": [phrases.get(str(h), h) for h in sort["has"]],
                "answers": sum(
                    map(groups.get, sort.get("only", sort.get("not"))), []
                ),
                "only": "only" in sort,
                "floor": 0.0,
            }
            for sort in _TABLE["sorts"]
        ],
    }


def with_floors(rule, answers, asked, logits):
    """Return a rule whose table of questions has floors.

    Args:
        rule: dict, the rejection of a preset with a `table`.
        answers: list of str.
        asked, logits: what `Scored.answered` returned of validation.
    """
    questions = rule["questions"]
    texts = [question.text for question in asked]
    found = runtime.best_answers(rule, answers, logits, texts)
    read = [runtime.read_question(text, **questions) for text in texts]
    best = np.array([pairs[0][1] for pairs, _ in found])
    right = np.array(
        [q.is_right(p[0][0]) for q, (p, _) in zip(asked, found, strict=True)]
    )
    known = np.array([is_known for _, is_known in found])
    names = np.array([sort["name"] for sort, _ in read])
    sorts = []
    for sort in questions["sorts"]:
        own = known & (names == sort["name"])
        sorts.append(sort | {"floor": floor_for(best[own], right[own])})
        print(
            f"{sort['name']}: {right[own].sum()} of {own.sum()} right, "
            f"floor {sorts[-1]['floor']:.3f}"
        )
    # All of English that was asked, and little of other languages.
    share = min(share for _, share in read)
    return rule | {"questions": questions | {"share": share, "sorts": sorts}}


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("preset", type=pathlib.Path)
    settings = parser.parse_args()
    scored = score.Scored(settings.folder, settings.preset)
    _, taught = scored.drawn("train", score.TRAINING_SCENES)
    texts = [question.text for several in taught for question in several]
    where = places(scored.world, classes.read(scored.folders))
    saved = read_json(settings.preset / "task.json")
    values = saved["config"]
    answers = values["answers"]
    rule = values["rejection"] | {
        "questions": table(answers, where, words_of([*texts, *answers]))
    }
    values["rejection"] = with_floors(
        rule, answers, *scored.answered("validation")
    )
    text = json.dumps(saved, indent=4)
    (settings.preset / "task.json").write_text(text)
    manifest.write(settings.preset)


if __name__ == "__main__":
    main()
