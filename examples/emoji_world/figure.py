r"""Draw what a search among the drawings finds, for queries in free words.

PYTHONPATH=examples python -m emoji_world.figure runs/emoji search.png
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import keras_bridgetower as kbt
from emoji_world import gallery
from emoji_world.training.run import WHOLE
from emoji_world.training.run import Run

QUERIES = (
    "something sweet for a birthday",
    "a fast red car",
    "an animal that lives in the sea",
    "it is raining",
    "music",
    "a face that cries",
)
SHOWN = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--preset", help="another preset than the run's")
    parser.add_argument("--artist", default="noto")
    settings = parser.parse_args()
    run = Run(settings.folder, 0)
    task = kbt.BridgeTowerContrastive.from_preset(
        settings.preset or run.folder / WHOLE
    )
    shown = gallery.Gallery(run.world, run.splits.looks, settings.artist)
    images = task.embed(images=shown.pictures, batch_size=128)
    scores = task.embed(texts=list(QUERIES)) @ images.T
    draw(shown, scores).savefig(settings.file, dpi=110)
    print(settings.file)


def draw(shown, scores):
    """A row of drawings for each query, the nearest first."""
    figure = plt.figure(
        figsize=(7.6, len(QUERIES) * 1.25), layout="constrained"
    )
    parts = figure.subfigures(len(QUERIES), 1)
    for part, query, found in zip(parts, QUERIES, scores, strict=True):
        part.suptitle(f"“{query}”", x=0.01, ha="left", fontsize=12)
        row = part.subplots(1, SHOWN)
        for place, best in zip(row, np.argsort(-found), strict=False):
            place.imshow(shown.pictures[best])
            place.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
