"""Write the preset folder of the package from a trained and scored run.

    python -m keras_bridgetower_drawings.training.emoji.release runs/emoji out

Its matrices are in half precision, rounded to 10 bits. Score it once more with
`score --preset ...`: no score may move by 0.2, or by more than one text or
question.
"""

import argparse
import json
import pathlib

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training import low_precision
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.easy import tiny_training
from keras_bridgetower_drawings.training.emoji.model import Together
from keras_bridgetower_drawings.training.emoji.packages import PACKAGES
from keras_bridgetower_drawings.training.emoji.run import WHOLE
from keras_bridgetower_drawings.training.emoji.train import STAGES

NAME = "bridgetower_tiny_emoji_vqa"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    settings = parser.parse_args()
    run, folder = settings.run, settings.target / NAME
    tasks = [
        task.from_preset(run / WHOLE)
        for task in (kbt.BridgeTowerVQA, kbt.BridgeTowerPretraining)
    ]
    record = {
        stage: json.loads((run / f"{stage}.json").read_text())
        for stage in STAGES
    }
    record["scores"] = json.loads((run / "scores.json").read_text())
    record["scores"]["rerank"] = json.loads((run / "rerank.json").read_text())
    page = _page(tasks[0].count_params(), record)
    tiny_training.save(Together(*tasks), folder, record, page)
    low_precision.store(folder, 10)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB")


def _page(parameters, record):
    """Fill in `page.md`."""
    minutes = sum(record[stage]["seconds"] for stage in STAGES) / 60
    tables = {
        name.replace(" ", "_"): _table(rows)
        for name, rows in record["scores"].items()
    }
    page = pathlib.Path(__file__).with_name("page.md").read_text()
    return page.format(
        name=NAME,
        parameters=f"{parameters:,}",
        minutes=round(minutes),
        backends=", ".join(f"{s} {record[s]['backend']}" for s in STAGES),
        seed=record[WHOLE]["seed"],
        credits=credits(PACKAGES),
        **tables,
    )


def credits(packages):
    """Return a list of packages with their authors and licenses."""
    return "\n".join(
        f"* {package.credit} ({package.name} {package.version}): "
        f"{package.licence}"
        for package in packages.values()
    )


def _table(rows):
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = [["", *columns]]
    lines += [
        [name, *(row.get(c, "") for c in columns)] for name, row in rows.items()
    ]
    return reports.markdown(lines).rstrip("\n")


if __name__ == "__main__":
    main()
