"""Add the re-ranker to the package of the photo presets, from a scored run.

    python -m keras_bridgetower_photos.training.reranker.release \
        runs/reranker preset_packages/photos

Matrices become floats of 8 bits. Then score both splits of the stored preset,
and release with `--keep-weights`, so that the card has its scores.
"""

import pathlib
import shutil

from keras_bridgetower_drawings.training import low_precision
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import model
from keras_bridgetower_drawings.training.emoji.release import credits
from keras_bridgetower_drawings.training.scenes.release import table

import keras_bridgetower as kbt
from keras_bridgetower.files import read_json
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import release

NAME = "bridgetower_small_photo_scenes_retrieval"
VECTORS = "bridgetower_small_photo_scenes_contrastive"
JUDGES = "bridgetower_small_photo_scenes_entailment"
KNOWS = (
    "scenes of one to three photographed things with 384 x 384 pixels, and "
    "English captions of their places, sizes, colors and grounds"
)
SCORED = ("validation", "test")
TABLES = ("pairs", "lists", "captions")


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--keep-weights", action="store_true")
    settings = parser.parse_args()
    run, package = settings.folder, settings.target / release.PACKAGE
    folder = package / NAME
    if not settings.keep_weights:
        kinds = kbt.BridgeTowerRetrieval, kbt.BridgeTowerEntailment
        tasks = [kind.from_preset(run / "judging") for kind in kinds]
        shutil.rmtree(folder, ignore_errors=True)
        model.Together(*tasks).save_to_preset(folder)
        low_precision.store(folder, 8)
    scores = {
        part: read_json(path) | read_json(run / f"judged_{part}_torch.json")
        for part in SCORED
        if (path := run / f"scores_{part}_torch.json").exists()
    }
    describe(package, scores, read_json(run / "words.json"))
    size = sum(file.stat().st_size for file in folder.rglob("*.h5"))
    print(f"{folder}: {size / 1e6:.2f} MB of weights")


def describe(package, scores, words):
    """Write the table, the card and the record of a stored preset.

    Args:
        package: path of the package's modules.
        scores: dict from parts to what `score.tables` returned.
        words: int, how many nouns the text tower learned.
    """
    folder = package / NAME
    opened = {
        NAME: kbt.BridgeTowerRetrieval.from_preset(folder),
        VECTORS: kbt.BridgeTowerContrastive.from_preset(folder),
        JUDGES: kbt.BridgeTowerEntailment.from_preset(folder),
    }
    found = {
        f"{part}_{name}": table(rows)
        for part, tables in scores.items()
        for name, rows in tables.items()
    }
    page = pathlib.Path(__file__).with_name("page.md").read_text()
    empty = {f"{part}_{n}": "" for part in SCORED for n in TABLES}
    page = page.format(
        name=NAME,
        vectors=VECTORS,
        judges=JUDGES,
        parameters=f"{opened[NAME].count_params():,}",
        words=f"{words:,}",
        credits=credits(packages.PACKAGES),
        **empty | found,
    )
    (folder / "README.md").write_text(page)
    record = {"seed": 0, "words": words, "scores": scores}
    registry.write_json(folder, "training.json", record)
    manifest.write(folder)
    told = {
        NAME: "Re-ranks photographs by captions of what is where.",
        VECTORS: "Embeds scenes of photographs and captions in one space.",
        JUDGES: "Says whether a photograph entails a caption.",
    }
    rows = {
        name: {
            "description": told[name],
            "knows": KNOWS,
            "parameters": task.count_params(),
            "image_size": task.backbone.image_size,
            "heads": list(task.heads),
            "tasks": [type(task).__name__],
            "folder": NAME,
            "reranks": name == NAME and gains(scores),
        }
        for name, task in opened.items()
    }
    known = read_json(package / "table.json")
    registry.write_json(package, "table.json", known | rows)


def gains(scores):
    """Return whether lists of validation gain over the released vectors."""
    row = scores.get("validation", {}).get("lists", {}).get("released vectors")
    return bool(row) and "(+" in row["the fusion has more"]


if __name__ == "__main__":
    main()
