r"""Measure how often a word alone finds the side where its thing is.

    export KERAS_BACKEND=torch
    python -m keras_bridgetower_photos.training.pointing \
        runs/photos --sides 224 320 448

No fusion is involved: a noun in a question is compared with the classes that
the image tower sees at each place, in the space of the stage `start`. For
things that training never saw this is the upper limit of any fusion.
"""

import keras
import numpy as np
from keras import ops
from keras_bridgetower_drawings.training import reports

import keras_bridgetower as kbt
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import scenes
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.score import SPLITS

SCENES = 160
SHARPNESS = 20.0  # Of the similarity of a word and a place.
ASKED = "where is the {noun}?"
BEFORE, BEHIND = 4, 2  # Tokens around the noun, those of start and end too.


def draw(world, split, rng):
    """Draw scenes of several things, some of which are on a side.

    Returns pictures, and `(picture, noun, "left" or "right")` for such things.
    """
    drawn, pictures, asked = scenes.Scenes(world, split), [], []
    while len(pictures) < SCENES:
        scene = drawn.draw(rng)
        if scene.sort == "several" or len(scene.placed) < 2:
            continue
        for number, placed in enumerate(scene.placed):
            side = scene.position(number)
            if side in ("left", "right"):
                asked.append((len(pictures), placed.thing.noun, side))
        pictures.append(scene.picture)
    return pictures, asked


def word_vectors(pairs, nouns):
    """Return the vectors of nouns, as a question has them."""
    tokenizer, head = pairs.preprocessor.tokenizer, pairs.heads["itc"]
    found = []
    for noun in nouns:
        given = model.text_features(tokenizer, [ASKED.format(noun=noun)])
        states = pairs.backbone.text_tower(given)[-1]
        last = int(given["padding_mask"].sum()) - BEHIND
        word = ops.mean(states[:, BEFORE:last], 1)
        found.append(ops.convert_to_numpy(head.text_dense(word))[0])
    return np.stack(found)


def sides(near):
    """Return "left" or "right" for each of `(words, height, width)`.

    `near` has the similarities of words to places.
    """
    columns = np.exp(SHARPNESS * near).sum(1)
    middle = columns @ np.linspace(-1, 1, columns.shape[1])
    return ["left" if x < 0 else "right" for x in middle]


def share_right(pairs, eyes, pictures, asked, words):
    """Return the share of words that find the side of their things.

    `pictures` and `asked` are those of `draw`, `words` those of `word_vectors`.
    """
    seen = eyes.states(pictures)[-1][:, 1:].astype("float32")
    places = ops.convert_to_numpy(pairs.heads["itc"].image_dense(seen))
    rows, _, told = zip(*asked, strict=True)
    places, words = map(keras.utils.normalize, (places, words))
    near = np.einsum("ikd,id->ik", places[list(rows)], words)
    width = int(near.shape[1] ** 0.5)
    found = sides(near.reshape(-1, width, width))
    return np.mean([a == b for a, b in zip(found, told, strict=True)])


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[model.SIDE])
    settings = parser.parse_args()
    # It imports OpenVINO, which makes a process of its own.
    from keras_bridgetower_photos.training.draw import Eyes

    folders = packages.fetch(settings.folder / "packages")
    world = things.load(folders)
    pairs = kbt.BridgeTowerPretraining.from_preset(settings.folder / "start")
    drawn = {
        split: draw(world, split, np.random.default_rng((5, i)))
        for i, split in enumerate(SPLITS)
    }
    words = {
        split: word_vectors(pairs, [noun for _, noun, _ in asked])
        for split, (_, asked) in drawn.items()
    }
    for side in settings.sides:
        eyes = Eyes(model.image_encoder(folders, side), side)
        for split, given in drawn.items():
            share = share_right(pairs, eyes, *given, words[split])
            print(f"{side} pixels, {split}: {100 * share:.1f} %", flush=True)


if __name__ == "__main__":
    main()
