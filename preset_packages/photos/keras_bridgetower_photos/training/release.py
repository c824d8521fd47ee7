r"""Write the package of the photo presets from a trained and scored run.

    python -m keras_bridgetower_photos.training.release \
        runs/photos/calibrated preset_packages/photos

Both splits must be scored: validation decides whether a search reranks.
Matrices become floats of 8 bits, the rest float16. Then score both splits again
with `score --preset`, and release by `--keep-weights`, so that the
card has the scores of the stored weights.
"""

import argparse
import collections
import csv
import pathlib

from keras_bridgetower_drawings.training import low_precision
from keras_bridgetower_drawings.training.emoji import release as emoji_release
from keras_bridgetower_drawings.training.emoji.model import Together

import keras_bridgetower as kbt
from keras_bridgetower.files import read_json
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower_photos.training import credits
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.score import SIMILARITY

FAMILY = "bridgetower_small_photo_"
# The folder that all presets share, and the Python package around it.
FOLDER, PACKAGE = FAMILY + "vqa", "keras_bridgetower_photos"
KNOWS = (
    "photographs of animals, food, plants, things and buildings, with 224 x "
    "224 pixels, and short English texts about them"
)
# The task of each preset, its heads, and a description.
PRESETS = read_json(pathlib.Path(__file__).with_suffix(".json"))
# Licenses whose works may become a part of one under version 3 of the GPL.
# Later versions of CC BY-SA may replace 2.0, and 4.0 leads to the GPL.
FREE = {"public-domain", "CC0-1.0", "CC-BY-1.0", "CC-BY-2.0", "CC-BY-3.0"}
SHARED = {f"CC-BY-SA-{n}" for n in ("2.0", "2.5", "3.0", "4.0")}
ALLOWED = FREE | SHARED | {"GPL-2", "GPL-2+", "GPL-3", "GPL-3+"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--keep-weights", action="store_true")
    settings = parser.parse_args()
    run, package = settings.preset.parent, settings.target / PACKAGE
    shown = pictures(packages.fetch(run / "packages"))
    if settings.keep_weights:
        rows = table_of(opened(package / FOLDER))
    else:
        rows = store(settings.preset, package / FOLDER)
    describe(package, rows, records(run), shown)
    size = sum(file.stat().st_size for file in package.rglob("*.h5"))
    print(f"{package}: {size / 1e6:.2f} MB of weights")


def pictures(folders):
    """Return split and credit of all pictures, after a look at licenses.

    Raises:
        ValueError: the weights may not be under the license of the package.
    """
    world = things.load(folders)
    splits = {one.id: one.split for one in world.shown}
    found = [(splits[c.picture], *c) for c in credits.credits(folders)]
    for split, picture, _, licence, *_ in found:
        # What no weight learns from can be under any license.
        if split == "train" and licence not in ALLOWED:
            raise ValueError(
                f"{picture} is under {licence}, which does not lead to the "
                "GPL 3: take it from training"
            )
    return found


def store(preset, folder):
    """Save a preset with all heads in few bits; return `table_of` it."""
    tasks = opened(preset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    Together(*tasks).save_to_preset(folder)
    low_precision.store(folder, 8)
    return table_of(tasks)


def opened(preset):
    """Open the two tasks that have all heads."""
    return [
        task.from_preset(preset)
        for task in (kbt.BridgeTowerVQA, kbt.BridgeTowerPretraining)
    ]


def table_of(tasks):
    """Return the table of the presets whose heads some tasks have."""
    backbone = tasks[0].backbone
    sizes = {n: t.heads[n].count_params() for t in tasks for n in t.heads}
    return {
        FAMILY + suffix: {
            "description": description,
            "knows": KNOWS,
            "parameters": backbone.count_params() + sum(map(sizes.get, heads)),
            "image_size": backbone.image_size,
            "heads": heads,
            "tasks": [task],
            "folder": FOLDER,
        }
        for suffix, (task, heads, description) in PRESETS.items()
    }


def records(run):
    """Return what the stages and the scoring of a run wrote, by file."""
    return {path.stem: read_json(path) for path in sorted(run.glob("*.json"))}


def describe(package, rows, record, shown):
    """Write the table, the card and the credits of a package."""
    folder = package / FOLDER
    search = reranking(record)
    rows = {name: row | search for name, row in rows.items()}
    table = package / "table.json"
    known = read_json(table) if table.exists() else {}
    others = {n: row for n, row in known.items() if row["folder"] != FOLDER}
    registry.write_json(package, table.name, rows | others)
    registry.write_json(folder, "training.json", record)
    (folder / "README.md").write_text(card(rows, record, shown))
    manifest.write(folder)
    with (package / "pictures.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("split", *credits.Credit._fields))
        writer.writerows(shown)


def reranking(record):
    """Return how a search reranks: only if all lists of validation gain.

    The whole interval of the gain must be above zero.
    """
    found = record.get("scores_validation", {}).get("search", {})
    lows = [
        float(lists["nDCG@10"]["95 % interval"].split(" to ")[0])
        for name, lists in found.items()
        if name.endswith("re-ranked")
    ]
    improves = bool(lows) and min(lows) > 0
    return {"reranks": improves, "similarity_weight": SIMILARITY}


def card(rows, record, shown):
    """Fill in `page.md`."""
    stages = {n: r for n, r in record.items() if "seconds" in r}
    scores = {n: r for n, r in record.items() if n not in stages}
    hours = sum(stage["seconds"] for stage in stages.values()) / 3600
    licences = collections.Counter(
        licence for split, _, _, licence, *_ in shown if split == "train"
    )
    told = {
        "name": FOLDER,
        "parameters": f"{rows[FOLDER]['parameters']:,}",
        "scores": "\n\n".join(
            f"`{file}.json`, {name}:\n\n{_bullets(found)}"
            for file, groups in scores.items()
            for name, found in groups.items()
        ),
        "stages": "\n".join(
            f"* {name}: {stage['seconds'] / 3600:.1f} hours on "
            f"{stage['backend']}, seed {stage['seed']}"
            for name, stage in stages.items()
        ),
        "hours": f"{hours:.1f}",
        "licences": "\n".join(
            f"* {licence}: {count} pictures"
            for licence, count in licences.most_common()
        ),
        "pictures": licences.total(),
        "credits": emoji_release.credits(packages.PACKAGES),
    }
    page = pathlib.Path(__file__).with_name("page.md").read_text()
    return page.format(**told)


def _bullets(found):
    if not isinstance(found, dict):
        return f"* {found}"
    return "\n".join(f"* {name}: {_line(v)}" for name, v in found.items())


def _line(found):
    if not isinstance(found, dict):
        return str(found)
    return ", ".join(f"{name} {_line(v)}" for name, v in found.items())


if __name__ == "__main__":
    main()
