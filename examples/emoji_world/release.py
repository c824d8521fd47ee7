r"""Write the two preset folders of the package from a trained and scored run.

    PYTHONPATH=examples:tools python -m emoji_world.release runs/emoji out

The folders' weights are in half precision. Score them once more with
`emoji_world.score --pretrain ... --vqa ...`: no score may move by 0.2.
"""

import argparse
import json
import pathlib

import half_precision
from easy_world.training.tiny_training import save

import keras_bridgetower as kbt
from emoji_world.packages import PACKAGES
from emoji_world.training import train

# By stage, its task and the tables of `scores.json` for its page.
RELEASED = {
    "pretrain": (kbt.BridgeTowerPretraining, ("search", "descriptions")),
    "vqa": (kbt.BridgeTowerVQA, ("vqa",)),
}
STAGES = tuple(train.STAGES)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    settings = parser.parse_args()
    scores = json.loads((settings.run / "scores.json").read_text())
    for stage, (opens, tables) in RELEASED.items():
        name = f"bridgetower_tiny_emoji_{stage}"
        # Objectives stand in the folder; hard negatives do not.
        extra = {"negatives": "hard_negatives"} if stage == "pretrain" else {}
        task = opens.from_preset(settings.run / stage, **extra)
        record = {
            earlier: json.loads((settings.run / f"{earlier}.json").read_text())
            for earlier in STAGES[: STAGES.index(stage) + 1]
        }
        told = {table: scores[table] for table in tables}
        record["scores"] = told
        folder = settings.target / name
        save(task, folder, record, _page(name, task, record, told))
        half_precision.store_in_half(folder)
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        print(f"{folder}: {size / 1e6:.2f} MB")


def _page(name, task, record, told):
    minutes = sum(record[s]["seconds"] for s in STAGES if s in record) / 60
    tables = "\n\n".join(_table(rows) for rows in told.values())
    credits = "\n".join(
        f"* {package.credit} ({package.name} {package.version}): "
        f"{package.licence}"
        for package in PACKAGES.values()
    )
    return f"""# {name}

A BridgeTower of {task.count_params():,} parameters for `{type(task).__name__}`.
It knows drawings of emoji, 64 x 64 pixels, and short English texts about them.
It does not know photographs: of those it says something too, a guess.

{tables}

`noto` and `fluent` are the artists that training saw, `twemoji` is one that it
never saw. A text finds all drawings of an artist at once; those that look alike
count as one. *Words never seen* are keywords that no caption of training
holds, *emoji never seen* are left out of training altogether. The texts of
*names* say the name in ways that training does not use. *Free descriptions*
are the hundred of `examples/emoji_world/descriptions.json`; BM25 and MiniLM
read names and keywords in place of pictures. *Blind* is the commonest answer to
the same question in training.

Trained by `examples/emoji_world/training/train.py` in {minutes:.0f} minutes on
two busy cores (backend {record["language"]["backend"]}, seed
{record["language"]["seed"]}): first the text tower learnt from MiniLM, and the
image tower from drawings and MiniLM's vectors of their captions; then the
fusion learnt to fill blanks and to match, with the towers at rest. No epoch was
chosen: the last one stands. The weights are stored in half precision.

## Data and licences

{credits}
"""


def _table(rows):
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(str(row.get(c, '')) for c in columns)} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
