"""Scores of matching and of masked words, with guessing and blind ones."""

import numpy as np

import keras_bridgetower as kbt
from emoji_world import texts

ASKED = 300
SEARCHED = 16  # The pictures that a search by vectors hands on to matching.
KEPT = (1, 5)
BLANK = "a drawing of {article}<mask>"


def match(run, preset, shown, read, seed):
    """How well pairs are told apart, and whether re-ranking helps a search.

    Each of 300 emoji of training is named in a way that training does not
    use. The name must fit its own drawing, and neither one drawn at random
    nor the wrong one that a search by vectors finds first.

    Args:
        run: `Run`.
        preset: as `from_preset` takes it.
        shown: dict from artist to its `Gallery` and its pictures' vectors.
        read: callable from texts to their vectors.
        seed: int.

    Returns:
        dict from artist to numbers in percent. Guessing gets 50.
    """
    task = kbt.BridgeTowerRetrieval.from_preset(preset)
    found = {}
    for artist, (drawn, images) in shown.items():
        rng = np.random.default_rng(seed)
        seen = np.flatnonzero(~run.splits.held_out[drawn.numbers])
        own, random = (rng.permutation(seen)[:ASKED] for _ in range(2))
        asked = [
            texts.ask_anew(run.world[drawn.numbers[place]].name, place)
            for place in own
        ]
        scores = read(asked) @ images.T
        best = np.argsort(-scores, 1, kind="stable")
        right = drawn.looks[best] == drawn.looks[own][:, None]
        nearest = best[np.arange(len(best)), right.argmin(1)]
        wrong = drawn.looks[random] != drawn.looks[own]
        its, others, like = (
            _odds(task, [drawn.pictures[place] for place in places], asked)
            for places in (own, random, nearest)
        )
        first = best[:, :SEARCHED]
        again = task.score(
            [drawn.pictures[place] for place in first.ravel()],
            np.repeat(asked, SEARCHED).tolist(),
            batch_size=160,
        ).reshape(first.shape)
        found[artist] = {
            "own, taken": _percent(its > 0),
            "random, refused": _percent(others[wrong] < 0),
            "nearest, refused": _percent(like < 0),
            "own above nearest": _percent(its > like),
            **_recalls("by vectors", right[:, :SEARCHED]),
            **_recalls(
                "matched again",
                np.take_along_axis(
                    right, np.argsort(-again, 1, kind="stable"), 1
                ),
            ),
        }
    return found


def fill(run, preset, shown, seed):
    """How often a name of one token is found behind a blank.

    Args:
        run, preset, shown, seed: as `match` takes them.

    Returns:
        dict from artist to numbers in percent. The blind ones have a white
        picture.
    """
    task = kbt.BridgeTowerMaskedLM.from_preset(preset)
    tokenizer = task.preprocessor.tokenizer
    found = {}
    for artist, (drawn, _) in shown.items():
        rng = np.random.default_rng(seed)
        names = [" " + run.world[number].name for number in drawn.numbers]
        # Start, name and end.
        short = (tokenizer(names) != tokenizer.pad_token_id).sum(-1) == 3
        asked = [
            (place, run.world[drawn.numbers[place]].name)
            for place in np.flatnonzero(short)
            if not run.splits.held_out[drawn.numbers[place]]
        ]
        asked = [asked[row] for row in rng.permutation(len(asked))[:ASKED]]
        pictures = [drawn.pictures[place] for place, _ in asked]
        white = [np.full_like(picture, 255) for picture in pictures]
        found[artist] = {
            "names": len(asked),
            **_filled("", task, pictures, asked),
            **_filled("blind, ", task, white, asked),
        }
    return found


def _odds(task, pictures, asked):
    """Logits of a match less those of none; above 0 it is a match."""
    x = {"images": np.stack(pictures), "text": asked}
    logits = task.predict(x, batch_size=100, verbose=0)
    return logits[:, 1] - logits[:, 0]


def _recalls(said, right):
    return {f"{said}, IR@{k}": _percent(right[:, :k].any(1)) for k in KEPT}


def _filled(said, task, pictures, asked):
    names = [name for _, name in asked]
    sentences = [
        BLANK.format(article=texts.with_article(name).removesuffix(name))
        for name in names
    ]
    given = task.fill_mask(pictures, sentences, top_k=max(KEPT), batch_size=100)
    words = [[word.strip() for word, _ in masks[0]] for masks, _ in given]
    return {
        f"{said}first {k}": _percent(
            np.array([n in w[:k] for n, w in zip(names, words, strict=True)])
        )
        for k in KEPT
    }


def _percent(hit):
    return round(100 * float(np.mean(hit)), 1)
