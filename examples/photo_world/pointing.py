r"""Measure how often a word alone finds the side where its thing is.

    export PYTHONPATH=examples KERAS_BACKEND=torch
    python -m photo_world.pointing runs/photos --sides 224 320 448

No fusion takes part: a noun in a question is compared with the classes that the
image tower sees at each place, in the space of the stage `start`. What this
does not tell of things that training never saw, no fusion can learn to tell.
"""

import argparse
import pathlib

import numpy as np
from keras import ops

import keras_bridgetower as kbt
from photo_world import packages
from photo_world import scenes
from photo_world import things
from photo_world.score import SPLITS
from photo_world.training import model

SCENES = 160
SHARPNESS = 20.0  # Of the similarity of a word and a place.
ASKED = "where is the {noun}?"
BEFORE, BEHIND = 4, 2  # Tokens around the noun, those of start and end too.


def draw(world, split, rng):
    """Draw scenes of several things, some of which are on a side.

    Returns:
        `(pictures, asked)`: list of arrays, and list of `(picture, noun,
        side)`, where the side is "left" or "right".
    """
    drawn, pictures, asked = scenes.Scenes(world, split), [], []
    while len(pictures) < SCENES:
        scene = drawn.draw(rng)
        if scene.sort == "several" or len(scene.placed) < 2:
            continue
        for number, placed in enumerate(scene.placed):
            if scene.position(number) in ("left", "right"):
                place = scene.position(number)
                asked.append((len(pictures), placed.thing.noun, place))
        pictures.append(scene.picture)
    return pictures, asked


def encoder_of(folders, side):
    """Return the image encoder for pictures of another size."""
    encoder = model.image_encoder(folders)
    config = encoder.get_config() | {"image_shape": (side, side, 3)}
    sized = type(encoder).from_config(config)
    sized.set_weights(encoder.get_weights())
    return sized


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
    """Return the side where most of each similarity is.

    Args:
        near: float `(words, height, width)`, similarities to places.

    Returns:
        list of "left" or "right".
    """
    columns = np.exp(SHARPNESS * near).sum(1)
    middle = columns @ np.linspace(-1, 1, columns.shape[1])
    return ["left" if x < 0 else "right" for x in middle]


def share_right(pairs, eyes, pictures, asked):
    """Return the share of words that find the side of their things."""
    seen = eyes.states(pictures)[-1][:, 1:].astype("float32")
    places = ops.convert_to_numpy(pairs.heads["itc"].image_dense(seen))
    rows, nouns, told = zip(*asked, strict=True)
    near = np.einsum(
        "ikd,id->ik", unit(places)[list(rows)], unit(word_vectors(pairs, nouns))
    )
    width = int(near.shape[1] ** 0.5)
    found = sides(near.reshape(-1, width, width))
    return np.mean([a == b for a, b in zip(found, told, strict=True)])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[model.SIDE])
    settings = parser.parse_args()
    # It imports OpenVINO, which makes a process of its own.
    from photo_world.training.draw import Eyes

    folders = packages.fetch(settings.folder / "packages")
    world = things.load(folders)
    pairs = kbt.BridgeTowerPretraining.from_preset(settings.folder / "start")
    drawn = {
        split: draw(world, split, np.random.default_rng((5, i)))
        for i, split in enumerate(SPLITS)
    }
    for side in settings.sides:
        eyes = Eyes(encoder_of(folders, side), side)
        for split, (pictures, asked) in drawn.items():
            share = share_right(pairs, eyes, pictures, asked)
            print(f"{side} pixels, {split}: {100 * share:.1f} %", flush=True)


if __name__ == "__main__":
    main()
