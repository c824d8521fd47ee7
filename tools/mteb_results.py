"""Write mteb's result files of the emoji and the photo presets.

    python tools/mteb_results.py runs/emoji runs/photos

They go to docs/results/mteb. Texts search all pictures; matching reorders the
first 20 of each list. True captions of scenes stand against swapped ones.
"""

import argparse
import pathlib

import numpy as np
from keras_bridgetower_drawings.training.emoji import score
from keras_bridgetower_drawings.training.emoji.run import Run
from keras_bridgetower_drawings.training.scenes import score as scene_score
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World
from keras_bridgetower_drawings.training.scenes.things import Things
from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things

import keras_bridgetower as kbt
from keras_bridgetower.apps.evaluation import models
from keras_bridgetower.apps.evaluation import tasks
from keras_bridgetower.apps.evaluation.tasks import evaluate

RESULTS = pathlib.Path(__file__).parent.parent / "docs" / "results" / "mteb"
ARTIST = "noto"
SIDE = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("emoji", help="folder of the emoji world's packages")
    parser.add_argument("photos", help="folder of the photo world's packages")
    settings = parser.parse_args()
    for family, made in (
        (
            "bridgetower_tiny_emoji",
            emoji_tasks(settings.emoji) + scene_tasks(settings.emoji),
        ),
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


def scene_tasks(folder):
    """Choose the true caption of a scene, by what the false one changes."""
    contrastive = kbt.BridgeTowerContrastive.from_preset(
        "bridgetower_tiny_emoji_contrastive"
    )
    # It finds the things where no earlier run has.
    found = Things(folder, contrastive).of("validation")
    world = World(found, "validation")
    rows = scene_score.pairs(world)
    return [
        tasks.caption_choice(
            f"Scenes-{sort}",
            f"true captions of scenes, and false ones in {sort}",
            [world.draw(row[1], SIDE) for row in rows if row[0] == sort],
            [[row[2].text, row[3].text] for row in rows if row[0] == sort],
        )
        for sort in SORTS
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
