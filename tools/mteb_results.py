"""Write mteb's result files of the emoji and the photo presets.

    python tools/mteb_results.py runs/emoji runs/photos

They go to docs/results/mteb. Texts search all pictures; matching reorders the
first 20 of each list.
"""

import argparse
import pathlib

import numpy as np
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji.run import Run
from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things

from keras_bridgetower.apps.evaluation import models
from keras_bridgetower.apps.evaluation import tasks
from keras_bridgetower.apps.evaluation.evaluate import evaluate

RESULTS = pathlib.Path(__file__).parent.parent / "docs" / "results" / "mteb"
ARTIST = "noto"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("emoji", help="folder of the emoji world's packages")
    parser.add_argument("photos", help="folder of the photo world's packages")
    settings = parser.parse_args()
    for family, made in (
        ("bridgetower_tiny_emoji", emoji_tasks(settings.emoji)),
        ("bridgetower_small_photo", photo_tasks(settings.photos)),
    ):
        found = evaluate(
            RESULTS,
            made,
            models.BridgeTowerEncoder.from_preset(f"{family}_contrastive"),
            models.BridgeTowerCrossEncoder.from_preset(f"{family}_retrieval"),
        )
        for model, scores in found.items():
            print(model, scores, flush=True)


def emoji_lists(folder):
    """Yield the drawings of an artist with free descriptions."""
    run = Run(folder, 0)
    shown = score.Gallery(run.world, run.splits.looks, ARTIST)
    texts, wanted = score.descriptions(run)
    fits = np.array([np.isin(shown.looks, [*looks]) for looks in wanted])
    yield "EmojiDescriptions", shown.pictures, texts, fits


def emoji_tasks(folder):
    """Search the drawings of an artist by free descriptions."""
    about = "free descriptions, never trained on, of drawings that were"
    return [
        tasks.picture_retrieval(name, about, *rows)
        for name, *rows in emoji_lists(folder)
    ]


def photo_lists(folder):
    """Yield all pictures with names and descriptions of held-out objects."""
    world = things.load(packages.fetch(pathlib.Path(folder) / "packages"))
    pictures = gallery.pictures(world)
    for name, find in (
        ("Names", gallery.named),
        ("Descriptions", gallery.described),
    ):
        yield f"Photo{name}", pictures, *find(world, "test")


def photo_tasks(folder):
    """Search all pictures by names and descriptions of held-out objects."""
    return [
        tasks.picture_retrieval(
            name,
            f"{name.removeprefix('Photo').lower()} of objects that no training "
            "saw",
            *rows,
        )
        for name, *rows in photo_lists(folder)
    ]


if __name__ == "__main__":
    main()
