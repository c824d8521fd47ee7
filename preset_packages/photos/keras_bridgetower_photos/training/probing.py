r"""Probe states of the image tower: how well do they predict a scene?

    KERAS_BACKEND=torch \
        python -m keras_bridgetower_photos.training.probing runs/photos

A logistic regression learns on scenes of training and names things, places and
colors of validation scenes, from the mean, maximum and deviation of a state
over its places.
"""

import collections

import numpy as np
from keras_bridgetower_drawings.training import reports
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_bridgetower_photos.training import draw
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training import scenes
from keras_bridgetower_photos.training import things

# An early block, the last features, and class probabilities.
TAPS = (-14, -3, -1)
SCENES = {"train": 4000, "validation": 1280}
SORTS = ("place", "noun", "color")
STRENGTH = 1e-3  # Of the fit to the scenes of training, against small weights.


def drawn(world, eyes, split):
    """Return what is asked of scenes of a split, and their states."""
    rng = np.random.default_rng((7, len(split)))
    source = scenes.Scenes(world, split)
    answers, rows, states = set(questions.answers(world)), [], []
    for _ in range(SCENES[split] // draw.BATCH):
        made, seen = draw.draw_batch(source, eyes, rng, answers)
        rows += made
        states.append([described(state) for state in seen])
    return rows, [np.concatenate(parts) for parts in zip(*states, strict=True)]


def described(states):
    """Return mean, maximum and deviation of states over the places."""
    seen = states[:, :, : -model.COORDINATES].astype("float32")
    return np.concatenate([seen.mean(1), seen.max(1), seen.std(1)], 1)


def asked(rows, sort):
    """Return the rows with a question of a sort, and the answers to it."""
    found = {}
    for number, row in enumerate(rows):
        # A thing and its color are that of a picture with one thing alone.
        if sort == "place" or len(row["nouns"]) == 1:
            told = [q[1] for q in row["questions"] if q[3] == sort]
            found |= {number: told[0]} if told else {}
    return [*found], [*found.values()]


def main():
    folder = reports.parser(__doc__).parse_args().folder
    folders = packages.fetch(folder / "packages")
    world = things.load(folders)
    eyes = draw.Eyes(model.image_encoder(folders), taps=TAPS)
    taught, probed = (drawn(world, eyes, split) for split in SCENES)
    for sort in SORTS:
        rows, right = asked(taught[0], sort)
        others, wanted = asked(probed[0], sort)
        (_, most), *_ = collections.Counter(wanted).most_common(1)
        print(
            f"{sort}: {len(wanted)} scenes, majority {most / len(wanted):.3f}"
        )
        for tap, mine, theirs in zip(TAPS, taught[1], probed[1], strict=True):
            probe = make_pipeline(
                StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=300)
            )
            probe.fit(mine[rows], right)
            score = probe.score(theirs[others], wanted)
            print(f"  state {tap}: {score:.3f}", flush=True)


if __name__ == "__main__":
    main()
