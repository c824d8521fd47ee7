"""Write the preset folder of the package from a trained and scored run.

    python -m keras_bridgetower_drawings.training.scenes.release FOLDER TARGET

Its matrices are in half precision, rounded to 10 bits.
"""

import json
import pathlib

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training import low_precision
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.easy import tiny_training
from keras_bridgetower_drawings.training.emoji.packages import PACKAGES
from keras_bridgetower_drawings.training.emoji.release import credits
from keras_bridgetower_drawings.training.scenes.scenes import SORTS

NAME = "bridgetower_tiny_scenes_retrieval"
VECTORS = "bridgetower_tiny_scenes_contrastive"  # The same by its vectors.
SCORED = ("validation", "validation_2", "test")  # Forms of captions.


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("target", type=pathlib.Path)
    settings = parser.parse_args()
    run, folder = settings.folder, settings.target / NAME
    task = kbt.BridgeTowerRetrieval.from_preset(run / "preset")
    record = {"seed": 0, "scores": {}}
    for part in SCORED:
        path = run / f"scores_{part}.json"
        record["scores"][part] = json.loads(path.read_text())
    page = pathlib.Path(__file__).with_name("page.md").read_text()
    tables = {
        f"{part}_{name}": table(rows)
        for part, found in record["scores"].items()
        for name, rows in found.items()
    }
    page = page.format(
        name=NAME,
        parameters=f"{task.count_params():,}",
        credits=credits(PACKAGES),
        **tables,
    )
    tiny_training.save(task, folder, record, page)
    low_precision.store(folder, 10)


def table(rows):
    """Return a Markdown table of rows by name; half is blind for pairs."""
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = [["", *columns]]
    lines += [
        [n, *(row.get(c, "") for c in columns)] for n, row in rows.items()
    ]
    if columns == list(SORTS):
        lines.append(["blind", *[50] * len(columns)])
    return reports.markdown(lines).rstrip("\n")


if __name__ == "__main__":
    main()
