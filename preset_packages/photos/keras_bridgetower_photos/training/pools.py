"""Pools of scenes: states of the image tower, and what is said and asked."""

import json
import pathlib
import shutil

import numpy as np

from keras_bridgetower_photos.training import words


class Pool:
    """A pool on disk.

    Attributes:
        states: list of float16 arrays `(scenes, tokens, width)`.
        rows: list of dict, what is said and asked of each scene.
    """

    def __init__(self, folder, in_memory=True):
        folder = pathlib.Path(folder)
        mode = None if in_memory else "r"
        self.states = [
            np.load(path, mmap_mode=mode)
            for path in sorted(folder.glob("states_*.npy"))
        ]
        self.rows = json.loads((folder / "rows.json").read_text())


def write(target, states, rows):
    """Write a pool, whole or not at all."""
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for layer, values in enumerate(states):
        np.save(unfinished / f"states_{layer}.npy", values)
    (unfinished / "rows.json").write_text(json.dumps(rows))
    unfinished.rename(target)
    return target


def apart(world):
    """Return the set of pairs of nouns that never name one thing."""
    shown = {one.noun: one for one in world.shown}
    return {
        (a, b)
        for a in shown
        for b in shown
        if words.are_apart(shown[a], shown[b])
    }
